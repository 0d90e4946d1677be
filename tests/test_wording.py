"""Every text that tests pin is used, and every one that they name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.wording import refusal, texts, worded

KNOWN = {f"{section}.{name}" for section, named in texts().items() for name in named}
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))


def test_every_text_is_used() -> None:
    named = set(re.findall(r"[\"'](\w+\.\w+)[\"']", SOURCES))
    assert sorted(KNOWN - named) == []


def test_every_text_that_is_named_is_there() -> None:
    looked_up = re.findall(r"\bworded\(\s*[\"']([^\"'{}]+)[\"']", SOURCES)
    assert len(looked_up) > len(KNOWN) / 3
    assert sorted(set(looked_up) - KNOWN) == []


def test_a_text_is_not_there_without_its_values() -> None:
    name = "errors.missing"
    with pytest.raises(KeyError, match="missing"):
        worded(name)
    with pytest.raises(KeyError, match="names"):
        worded("errors.near")


def test_a_refusal_is_told_from_others() -> None:
    pattern = refusal("sweep=group", "options.no_such", what="sweep", near="groups", valid="a, b")
    assert re.match(pattern, "sweep=group: unknown sweep; did you mean groups? valid: a, b")
    for other in (
        "sweep=groups: unknown sweep; did you mean groups? valid: a, b",
        "sweep=group: unknown data; did you mean groups? valid: a, b",
        "sweep=group: unknown sweep; did you mean norm? valid: a, b",
        "sweep=group: unknown sweep; did you mean groups? valid: b",
    ):
        assert not re.match(pattern, other)
