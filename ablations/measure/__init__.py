"""Measures the cost of modules and networks: time, memory, complexity and energy; independent of training."""
