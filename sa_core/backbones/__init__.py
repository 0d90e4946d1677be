"""Backbones with attention; `registry` has them by name, without torch, and `create` builds them."""
