"""Nested settings and their dotted names: `{"attention": {"groups": 8}}` and `attention.groups`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Settings = dict[str, Any]


def as_stored(settings: Mapping[str, Any]) -> Settings:
    """Returns settings as read back from a database, with lists in place of tuples."""
    return dict(json.loads(json.dumps(settings)))


def flatten(settings: Mapping[str, Any]) -> Settings:
    """Turns nested settings into dotted names."""
    return dict(leaves(settings))


def leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted name and value of each setting; a name that is given both nested and dotted is yielded twice."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
