"""How counts, and the first or the last line of a message, are written."""

from __future__ import annotations


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Writes a number of things: `1 replicate`, `3 replicates`; `plural` is a noun's with another ending than s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def last_line(reason: object) -> str:
    """Returns the last line of a traceback, which says what happened; nothing of what is no text."""
    return str(reason).strip().splitlines()[-1] if isinstance(reason, str) and reason.strip() else ""
