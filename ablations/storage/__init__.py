"""Optuna as the memory of a study, the locks on it, and the files beside it: checkpoints, weights, folders."""
