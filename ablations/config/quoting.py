"""Quotes text for Hydra's grammar, in which commas, quotes, brackets and other characters have a meaning."""

from __future__ import annotations

import re
import shlex

_LONGEST = 200  # characters; longer values are not repeated in a message
_NAMED = ("sweep.variants", "sweep.factors")  # names chosen by the user are part of these options


def quoted(text: str) -> str:
    r"""Returns a text as a quoted value, with `\${` in place of `${`, which would be a reference."""
    return in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def in_quotes(text: str) -> str:
    """Returns a text in double quotes, in Hydra's syntax: backslashes are doubled only before a quote."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ("\\" if found[2] else "") + found[2], text) + '"'


def quoting_advice(key: str, value: str) -> str:
    """Returns how to quote an invalid override, for the end of a message; empty if quoting would not help."""
    if key.startswith(_NAMED):
        if key.isascii() and value.isascii() and not set(key) & set(" '\",:()[]{}"):
            return ""
        return (
            "; names with characters other than letters, digits, '_' and '-' must be set in a file: --config-dir "
            "FOLDER, with FOLDER/sweep/NAME.yaml"
        )
    if not value or value[0] in "[{" or len(value) > _LONGEST or not value.isprintable():
        return ""
    return f"; text with special characters must be quoted: {shlex.quote(f'{key}={quoted(value)}')}"
