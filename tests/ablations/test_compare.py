"""Comparisons of stored studies: in Python, and with the verb `compare`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.image import imread

from ablations import cli, load_comparison
from ablations.analysis.comparison import StudyComparison
from ablations.common.errors import SuiteError
from ablations.compare import PURPOSE, compare
from tests.builders.stored import store_study
from tests.wording import refusal

LONGER, OTHER_BATCH, ALONE = "longer", "other-batch", "alone"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies of two protocols, one without a declaration, one with other variants, and copies in `elsewhere`."""
    folder = tmp_path_factory.mktemp("results")
    store_study(folder, "study=first")
    store_study(folder, f"study={LONGER}", "train.epochs=2", "sweep.factors.attention.groups=[2,8]", "sweep.margin=1")
    store_study(folder, f"study={OTHER_BATCH}", "train.batch_size=16", declared=False)
    store_study(folder, f"study={ALONE}", "sweep.factors.attention.groups=[8]", "sweep.baseline=groups=8", "seed=3")
    store_study(folder, "study=by-loss", "judge.metric=test_loss", "sweep.margin=0.1")
    shutil.copytree(folder, folder / "elsewhere")
    return folder


def load(results: Path, *words: str) -> StudyComparison:
    return load_comparison(*words, f"results_dir={results}")


def call(results: Path, *words: str) -> int:
    return cli.main("compare", PURPOSE, act_on_stored=compare, arguments=[*words, f"results_dir={results}"])


def test_shared_contrasts_are_judged_in_each_study_as_one_family(results: Path) -> None:
    comparison = load(results, "first", LONGER)
    assert comparison.shared == {"groups=2": "none"}
    assert comparison.frame[["study", "variant", "baseline", "n"]].to_numpy().tolist() == [
        ["first", "groups=2", "none", 6],
        [LONGER, "groups=2", "none", 6],
    ]
    assert comparison.margins == {"first": 2.0, LONGER: 1.0}
    assert list(comparison.agreements) == [("groups=2", "none")]
    assert set(comparison.cells["study"]) == {"first", LONGER}
    assert set(comparison.effects.columns) >= {"variant", "study", "other", "mean", "p"}


def test_differences_between_studies_are_listed(results: Path) -> None:
    options = load(results, "first", LONGER).options.set_index("option")
    assert options.loc["train.epochs"].to_list() == ["1", "2"]
    assert options.loc["margin"].to_list() == ["2", "1"]
    assert "data.name" not in options.index
    assert not [name for name in options.index if name.startswith("groups=8")]  # only one study has this variant


def test_cells_of_the_same_protocol_are_compared_one_by_one(results: Path) -> None:
    copied = load(results, "first", str(results / "elsewhere" / "first")).pairs
    assert copied[["same_protocol", "cells", "equal", "largest"]].to_numpy().tolist() == [[True, 18, 18, 0.0]]
    other = load(results, "first", LONGER, OTHER_BATCH).pairs
    assert len(other) == 3
    assert not other["same_protocol"].any()


def test_a_study_without_a_declaration_is_compared_by_its_baseline(results: Path) -> None:
    comparison = load(results, "first", OTHER_BATCH)
    assert comparison.shared == {"groups=2": "none", "groups=4": "none"}
    assert [study.is_declared for study in comparison.studies.values()] == [True, False]
    assert comparison.margins == {"first": 2.0, OTHER_BATCH: 2.0}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("first",), "STUDY=first"),
        ((), "STUDY"),
        (("first", "first"), "STUDY=first"),
        (("first", "longr"), "STUDY=longr.*longer"),
        (("first", "nowhere/first"), "STUDY=nowhere/first"),
        (("first", ALONE), "STUDY.*groups=2 against none"),
        (("first", "by-loss"), "STUDY.*test_loss"),
        (("first", LONGER, "study=alone"), "study=alone"),
        (("first", LONGER, "study=a/b"), "study=a/b"),
    ],
    ids=[
        "one",
        "none",
        "twice",
        "misspelt",
        "no folder",
        "nothing shared",
        "other metric",
        "a study's name",
        "no name",
    ],
)
def test_an_impossible_comparison_is_one_message(results: Path, words: tuple[str, ...], named: str) -> None:
    with pytest.raises(SuiteError, match=named):
        load(results, *words)


def test_other_options_are_refused(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(results, "first", LONGER, "sweep=groups") == 2
    valid = "study, storage, results_dir"
    assert re.search(refusal("sweep=groups", "options.not_of", verb="compare", valid=valid), capsys.readouterr().err)


@pytest.mark.usefixtures("_drawn")
def test_the_verb_writes_a_report_tables_and_a_figure(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(results, "first", OTHER_BATCH, LONGER) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    folder = results / f"compare-first-vs-{OTHER_BATCH}-vs-{LONGER}"
    assert str(folder / "report.md") in printed.out
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "![Verdicts by study](figures/comparison.png)" in text
    assert "| train.epochs | 1 | 1 | 2 |" in text
    assert f"python -m ablations.compare first {OTHER_BATCH} {LONGER} results_dir={results}" in text
    assert imread(folder / "figures" / "comparison.png").std() > 0
    tables = {path.stem: pd.read_csv(path) for path in (folder / "tables").iterdir()}
    assert set(tables) == {"contrasts", "effects", "cells", "pairs", "options"}
    assert set(tables["contrasts"]["study"]) == {"first", OTHER_BATCH, LONGER}


def test_two_studies_of_one_name_have_different_labels_and_the_report_can_be_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = str(results / "elsewhere" / "first")
    assert call(results, "first", copied, "study=two-machines") == 0
    text = (results / "two-machines" / "report.md").read_text(encoding="utf-8")
    assert copied in text
    assert "18 cells in common" in text
    assert "same runs" in capsys.readouterr().out


def test_the_help_lists_the_few_options_and_needs_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("compare", PURPOSE, act_on_stored=compare, arguments=["a", "b", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "STUDY STUDY" in printed
    assert [name for name in ("study=", "storage=", "results_dir=") if f"  {name}" not in printed] == []
    assert "train.epochs" not in printed
