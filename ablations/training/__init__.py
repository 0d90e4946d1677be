"""One cell in, one result out; knows nothing of Optuna, MLflow or files."""
