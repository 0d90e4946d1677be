"""MLflow as a mirror of what is stored."""
