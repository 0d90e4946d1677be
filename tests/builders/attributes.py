"""Attributes of a study in a store."""

from __future__ import annotations

from typing import Any

ATTRIBUTES: dict[str, Any] = {
    "command": "python -m ablations.run sweep=groups",
    "data_fingerprint": "f00d",
    "data": {"train": 1500, "test": 500, "classes": [str(digit) for digit in range(10)]},
}
