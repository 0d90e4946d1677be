"""Sentences: what a study found, and how sure that is."""
