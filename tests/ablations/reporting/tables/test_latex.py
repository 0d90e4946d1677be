from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from ablations.reporting.tables.latex import latex_text


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


@given(st.text(st.characters(codec="utf-8")) | st.text("\\{}#$%&_~^<>|`'\"-,[]* ab×–") | st.text("-',a"))
def test_latex_prints_what_went_in(text: str) -> None:
    letters = "".join(letter if letter.isprintable() else " " for letter in text)
    assert printed(latex_text(text)) == " ".join(letters.split())


@given(st.sampled_from(["[", "*"]), st.text("ab]*[ "))
def test_a_row_never_begins_with_what_the_end_of_the_row_before_takes_for_its_own(first: str, text: str) -> None:
    assert latex_text(first + text)[0] == "{"
