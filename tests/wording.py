"""Access to the sentences that tests pin: `wording.toml`, by section and name."""

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
    """Returns the text `section.name` with values in place of its braces.

    Raises:
        KeyError: if the text does not exist, or a value is missing.
    """
    section, _, key = name.partition(".")
    return texts()[section][key].format(**values)


def refusal(
    subject: str, reason: str, /, *, then: str | tuple[str, ...] = (), near: str = "", valid: str = "", **values: Any
) -> str:
    """Returns a pattern for the message of an error.

    Args:
        subject: the option and its value, as `train.epochs=x`.
        reason: the name of the text with the reason.
        then: further texts of the message, in this order.
        near: the suggested choices, as `run or plan`.
        valid: the first of the valid choices, as `a, b`.
        values: of the reason.
    """
    parts = [worded(reason, **values), *((then,) if isinstance(then, str) else then)]
    if near:
        parts.append(worded("errors.near", names=near))
    if valid:
        parts.append(worded("errors.valid", names=valid))
    return rf"{re.escape(subject)}:? {'.*'.join(map(re.escape, parts))}"
