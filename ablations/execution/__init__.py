"""Runs and plans studies: cost estimates, scheduling, launching, recording, progress and interrupts."""
