"""Pinned texts are complete and used, and shown texts are in plain technical English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.wording import refusal, texts, worded

KNOWN = {f"{section}.{name}" for section, named in texts().items() for name in named}
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))


def test_every_text_is_used() -> None:
    named = set(re.findall(r"[\"'](\w+\.\w+)[\"']", SOURCES))
    assert sorted(KNOWN - named) == []


def test_every_named_text_exists() -> None:
    looked_up = re.findall(r"\bworded\(\s*[\"']([^\"'{}]+)[\"']", SOURCES)
    assert len(looked_up) > len(KNOWN) / 3
    assert sorted(set(looked_up) - KNOWN) == []


def test_a_missing_text_or_value_is_an_error() -> None:
    name = "errors.missing"
    with pytest.raises(KeyError, match="missing"):
        worded(name)
    with pytest.raises(KeyError, match="names"):
        worded("errors.near")


def test_a_refusal_matches_only_its_message() -> None:
    pattern = refusal("sweep=group", "options.no_such", what="sweep", near="groups", valid="a, b")
    assert re.match(pattern, "sweep=group: unknown sweep; did you mean groups? valid: a, b")
    for other in (
        "sweep=groups: unknown sweep; did you mean groups? valid: a, b",
        "sweep=group: unknown data; did you mean groups? valid: a, b",
        "sweep=group: unknown sweep; did you mean norm? valid: a, b",
        "sweep=group: unknown sweep; did you mean groups? valid: b",
    ):
        assert not re.match(pattern, other)


# Constructions that a reader has to translate back, and terms that have another standard name.
FORBIDDEN = re.compile(
    r"\bis no(t)? (number|name|text|whole|backbone|model|metric|figure|class|address)\b"
    r"|\bwhoever\b|\bnobody\b|\bwhat is said\b|\bof these,|\bpromise[sd]\b|\bflatter|\b(can(not)?|to) be had\b"
    r"|\bgoes on\b|\btried again\b|\btries \w+ again\b|\banew\b|\bthere is no such\b|\ball the same\b"
    r"|\bgo(es)? together\b|\bhow sure\b|\bless sure\b|\bequivalence is refused\b|\b(does|not) answer\b"
    r"|\bpicked after\b|\bstands side by side\b|\bwith the values that\b|\bin turns\b"
    r"|\bsays nothing\b|\ba reader may\b|\bneither true nor false\b",
    re.IGNORECASE,
)
# Other spellings of the field's terms, by the standard one.
SPELLINGS = {
    "top-1": r"\btop1\b(?!=)(?= (of|is|are|and|accuracy)\b)|\btop 1\b",
    "multiply-adds": r"\bmultiply adds\b|\bmult-adds\b|\bMAdds\b",
    "data set": r"\bdatasets? (of|is|are|has|have)\b",
    "test images": r"\btesting images\b|\btest scenes\b",
    "feature map": r"\bfeaturemaps?\b|\bfeature-maps?\b",
    "baseline": r"\bbase line\b|\bbase-line\b",
    "normalize, normalization": r"\bnormalis(e|es|ed|ation)\b",
    "NaN": r"\bnot a number\b",
}


def shown_strings() -> Iterator[tuple[str, str]]:
    """Every string of the product that may be shown, with its location, except docstrings."""
    for package in ("ablations", "sa_core"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value
                if is_text and id(node) not in documents:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
        for path in sorted([*(ROOT / package).rglob("*.yaml"), *(ROOT / package).rglob("*.html")]):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                yield f"{path.relative_to(ROOT)}:{number}", line.partition("#")[0] if path.suffix == ".yaml" else line


def test_no_text_has_a_construction_that_must_be_read_twice() -> None:
    strings = list(shown_strings())
    assert len(strings) > 1000
    found = [f"{place}: {text}" for place, text in strings if FORBIDDEN.search(text)]
    assert found == []


@pytest.mark.parametrize("term", SPELLINGS)
def test_a_term_has_one_spelling(term: str) -> None:
    assert [f"{place}: {text}" for place, text in shown_strings() if re.search(SPELLINGS[term], text)] == []


@pytest.mark.parametrize(
    "text", ["a=b: is no number; a number is", "picked after seeing the results, which flatters it", "Nobody answers"]
)
def test_such_a_construction_would_be_detected(text: str) -> None:
    assert FORBIDDEN.search(text)
