"""Parsed Markdown, and the texts of its table cells."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token


def unescaped(path: Path) -> str:
    """Returns the text of a file without the backslashes that escape characters."""
    return path.read_text(encoding="utf-8").replace("\\", "")


def parsed(text: str) -> list[Token]:
    """Returns the tokens of a text in GitHub-flavored Markdown."""
    return MarkdownIt("gfm-like", {"linkify": False}).parse(text)


def text_of(inline: Token) -> str:
    """Returns the text of a paragraph, a heading or a cell without markup."""
    assert inline.children is not None
    kinds = {child.type for child in inline.children}
    assert kinds <= {"text", "text_special"}, kinds
    return "".join(child.content for child in inline.children)


def cells_of(text: str) -> list[list[str]]:
    """Returns the cells of all table rows in a text, including headers."""
    rows: list[list[str]] = []
    is_cell = False
    for token in parsed(text):
        if token.type == "tr_open":
            rows.append([])
        is_cell = token.type in ("td_open", "th_open") or (is_cell and token.type == "inline")
        if is_cell and token.type == "inline":
            rows[-1].append(text_of(token))
    return rows
