"""Attention modules: shuffle attention, its rivals and controls; `registry` has them by name, `knobs` their options."""
