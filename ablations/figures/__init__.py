"""Figures, one file each: one function computes a tidy frame, another draws it."""
