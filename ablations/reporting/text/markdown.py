"""Escaping of text for Markdown (CommonMark with GitHub's tables, strikethrough and formulas)."""

from __future__ import annotations

import re

# Characters are escaped only where they have a meaning, so that reports are readable as plain text.
_MEANINGFUL = re.compile(
    r"""
    [\\`*~$]
    | (?<![^\W_])_ | _(?![^\W_])        # between letters it has no meaning
    | <(?=[A-Za-z/!?])                  # a tag or a link
    | &(?=\#?\w+;)                      # an entity
    | \](?=[(\[:])                      # a link, or the definition of one
    | !(?=\[)
    """,
    re.VERBOSE,
)
# At the beginning of a paragraph: a heading, a quote, a rule, an item, one that can be ticked.
_FIRST = re.compile(r"(?=[#>=])|(?=[-+](?:\s|$|[-+]))|(?<=\d)(?=[.)](?:\s|$))|(?=\[[ xX]\])")
_HEADING_END = re.compile(r"(?<![#\\])(?=#+$)")


def markdown_text(text: str) -> str:
    """Escapes a text, on one line, as the content of a paragraph, list item, heading or table cell."""
    escaped = _MEANINGFUL.sub(r"\\\g<0>", " ".join(text.splitlines()))
    start = re.match(r"\s*\d{0,9}", escaped)
    if start and (first := _FIRST.match(escaped, start.end())):
        escaped = f"{escaped[: first.start()]}\\{escaped[first.start() :]}"
    return _HEADING_END.sub(r"\\", escaped, count=1)


def code_block(text: str) -> list[str]:
    """Returns the lines of a code block, whose fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence, text, fence]


def code_span(text: str) -> str:
    """Returns inline code."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"
