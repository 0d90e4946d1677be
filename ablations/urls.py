"""URLs fit to be shown: in messages, reports and stores that other people read, passwords are three asterisks."""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"(://[^:/@\s'\"]*:)[^@\s'\"]+(@)")


def hide_passwords(text: str) -> str:
    """Replaces the password of every URL in a text."""
    return _PASSWORD.sub(r"\1***\2", text)
