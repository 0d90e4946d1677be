"""A study on one self-contained web page."""
