"""Text for Markdown (CommonMark with GitHub's tables, strikethrough and formulas), so that it is shown as it is."""

from __future__ import annotations

import re

# Where a sign has a meaning, it gets a backslash; elsewhere it stays bare, so that reports can be read as plain text.
_MEANINGFUL = re.compile(
    r"""
    [\\`*~$]
    | (?<![^\W_])_ | _(?![^\W_])        # between letters it is just an underscore
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
    """Writes a text on one line as the content of a paragraph, an item, a heading or a cell of a table."""
    escaped = _MEANINGFUL.sub(r"\\\g<0>", " ".join(text.splitlines()))
    start = re.match(r"\s*\d{0,9}", escaped)
    if start and (first := _FIRST.match(escaped, start.end())):
        escaped = f"{escaped[: first.start()]}\\{escaped[first.start() :]}"
    return _HEADING_END.sub(r"\\", escaped, count=1)


def code_block(text: str) -> list[str]:
    """Returns the lines of a block of code, whose fence is longer than any that the text has."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [fence, text, fence]


def code_span(text: str) -> str:
    """Writes code within a sentence."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"
