"""How numbers and counts are written in tables and sentences."""

from __future__ import annotations

from ablations.stats import Estimate


def points(difference: float) -> str:
    """Writes a difference in percentage points, with its sign: `+0.35`."""
    return f"{difference:+.2f}".replace("-0.00", "+0.00")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Writes a number of things: `1 replicate`, `3 replicates`; `plural` is a noun's with another ending than s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def last_line(reason: object) -> str:
    """Returns the last line of a traceback, which says what happened; nothing of what is no text."""
    return str(reason).strip().splitlines()[-1] if isinstance(reason, str) and reason.strip() else ""


def points_with_interval(difference: Estimate) -> str:
    """Writes a difference with its confidence interval, where it has one: `+0.35 [-0.10, +0.80]`."""
    if difference.has_interval and not difference.has_spread:
        return f"{points(difference.mean)} (no spread)"  # the same in every replicate: nothing to judge it by
    interval = f" [{points(difference.low)}, {points(difference.high)}]" if difference.has_interval else ""
    return f"{points(difference.mean)}{interval}"
