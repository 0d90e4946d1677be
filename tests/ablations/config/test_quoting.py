"""Text with special characters of Hydra's grammar is valid, or the message contains the quoted form."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from rich.console import Console

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.config.quoting import quoted
from ablations.data import load_images
from tests.builders.trees import make_tree
from tests.wording import refusal, worded

IN_A_FILE = worded("options.in_a_file")
FOLDERS = (
    "o'brien", 'the "best"', "cats, dogs", "set{1}", "[old] data", "a=b", "x(1)", "a: b", "50% #1?", "$HOME", "~x",
    "größe", "研究", "back\\slash", "end\\", "a;b&c|d", "${seed}", "null", "007", "true",
)  # fmt: skip


@given(st.text(st.characters(exclude_categories=("Cs",))) | st.text("a\\\"'${}, "))
def test_quoted_text_is_parsed_unchanged(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={quoted(text)}")
    assert OmegaConf.create({"key": override.value()}).key == text


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_with_special_characters_is_valid_or_the_message_quotes_it(name: str, tmp_path: Path) -> None:
    root = make_tree(tmp_path / name)
    typed = f"data.root={root}"
    try:
        config = compose_config(["data=imagenet_subset", typed])
    except UsageError as error:
        advice = re.search(re.escape(worded("options.quote")) + "(.*)", str(error))
        if advice is None:
            assert name == "${seed}"  # parsed as a reference
            return
        (typed,) = shlex.split(advice[1])
        config = compose_config(["data=imagenet_subset", typed])
    if name != "${seed}":
        assert load_images(config.data, Console(quiet=True)).classes == ("n01", "n02", "n03")


@pytest.mark.parametrize("name", FOLDERS)
def test_config_dir_may_have_any_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "sweep").mkdir(parents=True)
    (tmp_path / name / "sweep" / "mine.yaml").write_text(
        "question: Is it?\nvariants: {a: {attention: none}, b: {attention: se}}\nbaseline: a\n"
    )
    assert compose_config(["sweep=mine"], str(tmp_path / name)).sweep.question == "Is it?"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("results_dir=it's", refusal("results_dir=it's", "options.not_understood", then=worded("options.quote"))),
        ("storage=a, b", refusal("storage=a, b", "options.takes_one", like="[1,2]", then=worded("options.quote"))),
        (
            "sweep.variants={größe: {attention: se}}",
            refusal("sweep.variants={größe: {attention: se}}", "options.not_understood", then=IN_A_FILE),
        ),
    ],
)  # fmt: skip
def test_a_message_contains_the_quoted_text(typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compose_config([typed])


@pytest.mark.parametrize("typed", ["train.epochs=1,2", "train.epochs=[1", "data.root=range(1,3)"])
def test_quotes_are_not_suggested_for_anything_but_text(typed: str) -> None:
    with pytest.raises(UsageError) as error:
        compose_config([typed])
    assert "quot" not in str(error.value)
