"""Simulations of what verdicts promise, whose output is committed beside them."""
