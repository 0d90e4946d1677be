"""Training of a single cell; independent of Optuna, MLflow and files."""
