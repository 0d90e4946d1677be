"""Tables for the terminal, Markdown, CSV and LaTeX."""
