"""All words, tables and pictures that a person reads."""
