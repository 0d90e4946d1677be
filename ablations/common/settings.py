"""Nested settings and their dotted names: `{"attention": {"groups": 8}}` and `attention.groups`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Settings = dict[str, Any]


def as_stored(settings: Mapping[str, Any]) -> Settings:
    """Returns settings as a database gives them back, with lists for tuples."""
    return dict(json.loads(json.dumps(settings)))


def flatten(settings: Mapping[str, Any]) -> Settings:
    """Turns nested settings into dotted names."""
    return dict(leaves(settings))


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the value of each setting; a name that is written in two ways comes twice."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
