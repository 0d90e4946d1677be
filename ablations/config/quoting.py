"""How text is written for Hydra, whose grammar gives a meaning to commas, quotes, brackets and some more."""

from __future__ import annotations

import re
import shlex

_LONGEST = 200  # characters of a value that is repeated as it has to be written
_NAMED = ("sweep.variants", "sweep.factors")  # below these, a person's own names are part of the option


def quoted(text: str) -> str:
    r"""Returns how a text is typed as a value: within double quotes, and with `\${`, which refers to nothing."""
    return in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def in_quotes(text: str) -> str:
    """Returns Hydra's spelling of a text, within double quotes; a backslash is itself, unless a quote follows."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ("\\" if found[2] else "") + found[2], text) + '"'


def quoting_advice(key: str, value: str) -> str:
    """Returns how an override would have to be typed, for the end of a message; empty where that would not help."""
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
