"""Launchers train the cells that a driver hands over."""
