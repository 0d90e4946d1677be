"""Formats numbers and lists, and selects the line of an error that summarizes it."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Formats a count: `1 replicate`, `3 replicates`; `plural` is for nouns whose plural does not end in s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def three_digits(value: float) -> str:
    """Formats a number with three significant digits: `0.0123`, `5,900`."""
    return f"{float(f'{value:.3g}'):,.12g}"


def listed(names: Sequence[str]) -> str:
    """Joins names: `a`, `a and b`, `a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def first_line(error: BaseException, skipping: str = "") -> str:
    """Returns the first line of an error's message that does not begin with `skipping`, or else its type's name."""
    lines = (line.strip() for line in str(error).splitlines())
    kept = (line for line in lines if line and not (skipping and line.startswith(skipping)))
    return next(kept, type(error).__name__)


def last_line(reason: object) -> str:
    """Returns the last line of a traceback, which describes the error; empty if `reason` is not a string."""
    return str(reason).strip().splitlines()[-1] if isinstance(reason, str) and reason.strip() else ""
