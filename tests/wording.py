"""The one place that tests pin sentences in: `wording.toml`, by section and name."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any


@cache
def texts() -> dict[str, dict[str, str]]:
    """Returns all texts by section and name."""
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def worded(name: str, /, **values: Any) -> str:
    """Returns the text `section.name` with these values in the place of its braces.

    Raises:
        KeyError: if there is no such text, or a value of it was not given.
    """
    section, _, key = name.partition(".")
    return texts()[section][key].format(**values)


def refusal(
    subject: str, reason: str, /, *, then: str | tuple[str, ...] = (), near: str = "", valid: str = "", **values: Any
) -> str:
    """Returns a pattern of the message of an error.

    Args:
        subject: what it is about, as `train.epochs=x`.
        reason: the name of the text that says why that does not do.
        then: what the message goes on to name, in this order.
        near: the choices that it asks whether they were meant, as `run or plan`.
        valid: the first of the choices that it lists, as `a, b`.
        values: those of the reason.
    """
    parts = [worded(reason, **values), *((then,) if isinstance(then, str) else then)]
    if near:
        parts.append(worded("errors.near", names=near))
    if valid:
        parts.append(worded("errors.valid", names=valid))
    return rf"{re.escape(subject)}:? {'.*'.join(map(re.escape, parts))}"
