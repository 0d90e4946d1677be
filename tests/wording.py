"""The one place that tests pin sentences in: `wording.toml`, by section and name."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _texts() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def worded(name: str, **values: Any) -> str:
    """Returns the text `section.name` with these values in the place of its braces.

    Raises:
        KeyError: if there is no such text, or a value of it was not given.
    """
    section, _, key = name.partition(".")
    return _texts()[section][key].format(**values)
