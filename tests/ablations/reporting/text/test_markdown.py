from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ablations.reporting.tables.render import markdown_table
from ablations.reporting.text.markdown import code_block, code_span, markdown_text
from tests.builders.markdown import cells_of, parsed, text_of

SIGNS = "ab1 \\`*_~$<>[]()!&;#:|-+=./xX\"'@^{}"
ANY = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")))
TEXTS = (st.text(SIGNS, max_size=12) | ANY).map(lambda text: " ".join(text.split())).filter(bool)
AROUND = {
    "": ["paragraph_open", "inline", "paragraph_close"],
    "# ": ["heading_open", "inline", "heading_close"],
    "- ": [
        "bullet_list_open", "list_item_open", "paragraph_open", "inline", "paragraph_close", "list_item_close",
        "bullet_list_close",
    ],
}  # fmt: skip


@given(TEXTS, st.sampled_from(list(AROUND)))
def test_a_text_is_rendered_literally_as_paragraph_heading_and_item(text: str, start: str) -> None:
    tokens = parsed(start + markdown_text(text))
    assert [token.type for token in tokens] == AROUND[start]
    (inline,) = (token for token in tokens if token.type == "inline")
    assert text_of(inline) == text


@given(st.lists(st.lists(TEXTS, min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_table_cell_is_rendered_literally(rows: list[list[str]]) -> None:
    assert cells_of("\n".join(markdown_table(rows[0], rows[1:]))) == rows


@given(st.text("`a \n~", min_size=1))
def test_code_cannot_close_its_fence(text: str) -> None:
    (fence, *_) = parsed("\n".join([*code_block(text), "after"]))
    assert (fence.type, fence.content) == ("fence", f"{text}\n")
    line = " ".join(text.split()) or "x"
    (_, inline, _) = parsed(f"before {code_span(line)} after")
    assert inline.children is not None
    assert [child.content for child in inline.children] == ["before ", line, " after"]


@pytest.mark.parametrize(
    "text",
    [
        "groups=4: -0.67 [-1.48, +0.13] at 95 %, p < 0.05; 5 % & more", "wofmanaf/SA-Net, issue #8 (author)",
        "tables/churn.csv has every pair; train.learning_rate=0.1; resnet18_vd", "- 1", "2.5 points", "a > b",
    ],
)  # fmt: skip
def test_characters_without_a_meaning_are_not_escaped(text: str) -> None:
    assert markdown_text(text).removeprefix("\\") == text


def test_several_lines_are_joined() -> None:
    assert markdown_text("a\nb\r\n# c") == "a b # c"


def test_the_parser_supports_the_escaped_syntax() -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render("~~a~~ *b* <i>\n\n|a|\n|-|\n|b|")
    assert all(tag in html for tag in ("<s>", "<em>", "<i>", "<table>"))
