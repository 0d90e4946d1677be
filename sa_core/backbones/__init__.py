"""Backbones with attention. `registry` describes them by name, without torch; `create` builds them."""
