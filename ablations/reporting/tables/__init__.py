"""Tables, for the terminal, for Markdown, CSV and LaTeX."""
