"""Schedules say which cells come next, and how many there will be."""
