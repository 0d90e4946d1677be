"""What LaTeX would print."""

from __future__ import annotations

import re


def printed(latex: str) -> str:
    """What LaTeX prints of a text that has no formulas; raises where it would not print it."""
    named = {
        "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
        "textbar": "|", "textasciigrave": "`", "char34": '"', "texttimes": "×", "textendash": "–",
    }  # fmt: skip
    shown, at, depth, last = "", 0, 0, ""
    while at < len(latex):
        token = latex[at]
        if command := re.match(r"\\([a-z]+[0-9]*)\{\}", latex[at:]):
            shown, token = shown + named[command[1]], command[0]
        elif escaped := re.match(r"\\([{}#$%&_])", latex[at:]):
            shown, token = shown + escaped[1], escaped[0]
        elif token in "{}":
            depth += 1 if token == "{" else -1
            assert depth >= 0
        else:
            assert token not in "\\#$%&_~^", token
            assert not (token == last and token in "-',`"), "a ligature"
            assert not (token == " " and last == " ")
            shown += token
        last, at = token, at + len(token)
    assert depth == 0
    return shown
