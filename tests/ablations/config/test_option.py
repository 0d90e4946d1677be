from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

import pytest

from ablations.common.errors import UsageError
from ablations.common.resolve import resolve_threads
from ablations.common.sizes import SMALL_SIDE
from ablations.config import OWNERS, Config, ModelConfig, StoredConfig, decisive, neutral_defaults
from ablations.config.option import check_ranges, group, option
from tests.wording import refusal


@dataclass
class Inner:
    """Options of a group."""

    share: float = option(0.5, "A share.", above=0.0, maximum=1.0)


@dataclass
class Outer:
    """Options of every kind."""

    number: int = option(3, "A number.", minimum=1)
    words: int | str = option(3, "A number, or a word.", minimum=1, words=("auto",))
    names: list[str] = option(["a"], "Some names.", choices=("a", "b"))
    folder: str = option("x", "A folder.", local=True)
    extra: float = option(0.0, "A share that is off.", minimum=0.0, neutral=True)
    inner: Inner = group(Inner, verbs=("bench",))


def test_valid_values_pass_the_check() -> None:
    check_ranges(Outer())
    check_ranges(Outer(words="auto", names=["b", "a"], inner=Inner(1.0)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Outer(number=0), refusal("number=0", "options.below", least=1)),
        (Outer(words="many"), refusal("words=many", "options.word_or_integer", word="auto")),
        (Outer(words=0), refusal("words=0", "options.below", least=1)),
        (Outer(names=["a", "c"]), refusal("names=c", "options.unknown", valid="a, b")),
        (Outer(names=[]), refusal("names=[]", "options.empty", valid="a, b")),
        (Outer(names=[["a"]]), refusal("names=[[a]]", "options.not_one")),  # type: ignore[list-item]
        (Outer(folder="???"), refusal("folder", "options.no_value")),
        (Outer(inner=Inner(0.0)), refusal("inner.share=0.0", "options.not_above", above=0)),
        (Outer(inner=Inner(1.5)), refusal("inner.share=1.5", "options.over", most="1.0")),
        (Outer(inner=Inner(float("nan"))), refusal("inner.share=nan", "options.not_above", above=0)),
    ],
)
def test_an_invalid_value_is_one_message(config: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_ranges(config)
    assert re.fullmatch(message, str(caught.value))


def test_local_options_do_not_affect_results() -> None:
    assert "folder" not in decisive(Outer())
    assert {"root", "cache", "memory"}.isdisjoint(decisive(StoredConfig()))


def test_a_neutral_option_affects_results_only_if_it_differs_from_its_default() -> None:
    assert neutral_defaults(Outer) == {"extra": 0.0}
    assert "extra" not in decisive(Outer())
    assert decisive(Outer(extra=0.5)) == decisive(Outer()) | {"extra": 0.5}


def test_options_of_only_some_verbs_declare_them() -> None:
    assert OWNERS == {
        "bench": ("bench",), "plan": ("plan",), "figures": ("analyze",), "sync": ("analyze",),
        "export": ("run", "analyze"), "against": ("analyze",),
        "recipes": ("plan", "run", "analyze"), "reuse": ("plan", "run"),
    }  # fmt: skip


def test_help_texts_have_the_threshold_of_small_images() -> None:
    def sentence(config: type, name: str) -> str:
        return next(str(declared.metadata["help"]) for declared in fields(config) if declared.name == name)

    assert f"1 for images of up to {SMALL_SIDE} pixels" in sentence(Config, "threads")
    assert f"for images of up to {SMALL_SIDE} pixels" in sentence(ModelConfig, "stem")
    assert resolve_threads("auto", "cpu", SMALL_SIDE) == 1
