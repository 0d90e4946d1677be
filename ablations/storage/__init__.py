"""Storage of studies in Optuna, their locks, and the files beside them: checkpoints, weights, folders."""
