"""Reports: text, tables, figures and pages."""
