from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.tables.latex import latex_table, latex_text, macro_word, macro_words, number_macros
from ablations.reporting.tables.sections import Section
from tests.builders.analyses import GROUPS, macros, study_analysis
from tests.builders.latex import printed
from tests.wording import worded


@cache
def any_design() -> Design:
    return make_design(compose_config(["device=cpu", *GROUPS]))


def design_of(names: Sequence[str]) -> Design:
    made = any_design()
    return replace(made, variants=tuple(replace(made.variants[0], name=name) for name in names))


@given(st.lists(st.text("aA1 =_é-", max_size=5) | st.sampled_from(["top", "TopOne", "N", "B", "C"]), unique=True))
def test_macro_names_consist_of_letters_and_are_unique(names: list[str]) -> None:
    words = macro_words(design_of(names), {"StudyMargin"}, "Study")
    assert list(words) == names
    assert all(re.fullmatch("[A-Za-z]+", word) for word in words.values())
    made = [f"Study{word}{quantity}" for word in words.values() for quantity in ("N", "TopOne", "TopOneCI", "Verdict")]
    assert len(set(made) | {"StudyMargin"}) == len(made) + 1


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("groups=8", "GroupsEight"),
        ("groups=10", "GroupsOneZero"),
        ("w/o GN", "WOGN"),
        ("1x1 conv", "OneXOneConv"),
        ("sigmoid_from_0_95", "SigmoidFromZeroNineFive"),
        ("naïve", "Naive"),
        ("%", ""),
    ],
)
def test_names_are_converted_to_letters(name: str, word: str) -> None:
    assert macro_word(name) == word


def test_clashing_names_get_a_letter_in_the_order_of_the_study(tmp_path: Path) -> None:
    known = macros(number_macros(study_analysis(tmp_path, names=["a b", "a-b", "a_b"])))
    start = "GroupsDigitsResnetEightAB"
    assert [known[f"{start}{suffix}TopOne"] for suffix in ("", "B", "C")] == ["60.0", "61.0", "62.0"]


def test_macros_keep_their_names_while_the_study_is_running(tmp_path: Path) -> None:
    names = ["a b", "a-b", "a_b"]
    whole = macros(number_macros(study_analysis(tmp_path, names=names)))
    analysis = study_analysis(tmp_path, names=names)
    cells = analysis.results.cells
    part = replace(analysis, results=replace(analysis.results, cells=cells[cells["variant"] != "a b"]))
    partial = macros(number_macros(part))
    assert partial["GroupsDigitsResnetEightABBTopOne"] == whole["GroupsDigitsResnetEightABBTopOne"] == "61.0"
    assert "GroupsDigitsResnetEightABTopOne" not in partial


def test_macros_have_the_numbers_of_the_study(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path, replicates=3)
    text = number_macros(analysis)
    known, seen = macros(text), analysis.contrasts[0].difference
    assert seen is not None
    start = "GroupsDigitsResnetEight"
    expected = {
        "Replicates": "3",
        "Epochs": "4",
        "Margin": "1",
        "GroupsTwoN": "3",
        "GroupsTwoTopOne": "60.7",
        "GroupsTwoParameters": "75{,}100",
        "GroupsTwoGFLOPs": "0.004875",
        "GroupsTwoStepTime": "1.10",
        "GroupsTwoVerdict": "undecided",
        "GroupsTwoDifference": "+0.83",
        "GroupsTwoDifferenceCI": f"{{[}}\\ensuremath{{-}}{-seen.low:.2f}, {seen.high:+.2f}]",
        "GroupsTwoTopOneCI": "{[}57.8, 63.5]",
    }
    assert {name: known[start + name] for name in expected} == expected
    assert start + "NoneDifference" not in known
    assert text.startswith("%")
    assert "\\input{numbers}" in text
    example = re.search(r"The accuracy is \\([A-Za-z]+)", text)
    assert example is not None
    assert example[1] in known


@given(st.text(st.characters(codec="utf-8")) | st.text("\\{}#$%&_~^<>|`'\"-,[]* ab×–") | st.text("-',a"))
def test_escaped_text_is_printed_literally(text: str) -> None:
    letters = "".join(" " if category(letter) in ("Cc", "Cs", "Zl", "Zp") else letter for letter in text)
    assert printed(latex_text(text)) == " ".join(letters.split())


@given(st.sampled_from(["[", "*"]), st.text("ab]*[ "))
def test_a_row_never_starts_with_an_argument_of_the_preceding_line_break(first: str, text: str) -> None:
    assert latex_text(first + text)[0] == "{"


def table_of(name: str, label: str = "tab:x") -> str:
    return latex_table(Section("Variants", "", ("variant", "n"), [[name, "1"]]), "A caption.", label)


def test_labels_of_studies_are_unique() -> None:
    labels = [
        re.findall(r"\\label\{(.*)\}", table_of("a", f"tab:{study}"))[0] for study in ("研究一", "研究二", "a", "a-b")
    ]
    assert len(set(labels)) == len(labels)
    assert labels[2:] == ["tab:a", "tab:a-b"]
    assert all(re.fullmatch(r"[A-Za-z0-9:.+=_-]+", label) for label in labels)


@pytest.mark.parametrize(
    ("name", "needed"),
    [("plain – 2 × 3", None), ("größe", "latex.accents"), ("研究", "latex.unicode"), ("größe 😀", "latex.unicode")],
)
def test_a_table_states_which_latex_its_letters_require(name: str, needed: str | None) -> None:
    comments = [line for line in table_of(name).splitlines() if line.startswith("%")][1:]
    assert [comment.partition(":")[0] for comment in comments] == ([] if needed is None else [worded(needed)])
