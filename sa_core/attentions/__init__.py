"""Attention modules: shuffle attention, its rivals and controls, by name (`registry`), and their options (`knobs`)."""
