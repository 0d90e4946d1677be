"""Simulations of error rates and power, with their committed results."""
