from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from ablations.errors import UsageError
from ablations.report import Report, _contrast, make_report, print_report
from ablations.results import collect
from ablations.stats import Estimate, VariantSummary
from tests.ablations.test_results import design, stored

ATTRIBUTES = {"command": "python -m ablations.run sweep=groups", "data_fingerprint": "f00d"}


def report(folder: Path, finished: int = 6) -> Report:
    made = design()
    return make_report(made, collect(made, stored(made, finished)), ATTRIBUTES, folder)


def test_the_report_has_question_answer_table_figures_protocol_and_command(tmp_path: Path) -> None:
    text = report(tmp_path).path.read_text()
    for part in (
        "How many groups should shuffle attention use",
        "- groups=4: +2.00 points against none (n = 2), the same in every replicate: no spread to judge it by.",
        "- Highest: groups=4, 3.5 [-15.6, 22.6] % (n = 2), picked after seeing the results, which flatters it. This "
        "study cannot tell it from none (the baseline); groups=2.",
        "| groups=2 | 2 | 2.5 [-16.6, 21.6] | +1.00 (no spread) |",
        "| groups=2 | resnet8 | sa groups=2 |",
        "![variants](figures/variants.png)",
        "| train.epochs | 6 |",
        "python -m ablations.run sweep=groups",
        "| data fingerprint | f00d |",
        "| cpu | one |",
    ):
        assert part in text
    assert "Not finished" not in text
    assert (tmp_path / "figures" / "variants.png").exists()


def test_one_replicate_gets_no_interval_and_no_judgement(tmp_path: Path) -> None:
    text = report(tmp_path, finished=3).text
    assert "| groups=2 | 1 | 1.0 | +1.00 |" in text
    assert "- One replicate a variant: nothing says how sure the differences in the table are." in text
    assert "95 % CI +" not in text


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 2.0, "(n = 4, 95 % CI +0.01 to +2.00): the interval excludes 0."),
        (-2.0, -0.01, "(n = 4, 95 % CI -2.00 to -0.01): the interval excludes 0."),
        (-0.001, 2.0, "(n = 4, 95 % CI +0.00 to +2.00): undecided, the interval includes 0."),
        (1.0, 1.0, "(n = 4), the same in every replicate: no spread to judge it by."),
        (math.nan, math.nan, "; one replicate says nothing about how sure that is."),
    ],
)
def test_a_contrast_is_said_in_words_that_its_interval_bears(low: float, high: float, words: str) -> None:
    summary = VariantSummary(
        "sa", "none", Estimate(4, 50.0, 49.0, 51.0), Estimate(4, 1.0, low, high), None, 1.0, 1.0, 1
    )
    assert _contrast(summary).endswith(words)


def test_cells_that_failed_are_counted_and_their_reasons_given(tmp_path: Path) -> None:
    made = design()
    known = stored(made, 6)
    known[4] = replace(known[4], state=TrialState.FAIL, outcome=None, failure="Traceback\nValueError: planted\n")
    text = make_report(made, collect(made, known), ATTRIBUTES, tmp_path).text
    assert "- 1 cell failed and is in none of these means." in text
    assert "| groups=2 | 1 | failed | ValueError: planted |" in text


def test_a_study_of_which_every_cell_failed_is_reported_with_the_reasons(tmp_path: Path) -> None:
    made = design()
    known = [replace(cell, state=TrialState.FAIL, outcome=None, failure="ValueError: no") for cell in stored(made, 6)]
    made_report = make_report(made, collect(made, known), ATTRIBUTES, tmp_path)
    assert "No cell is finished: every one that was tried failed." in made_report.text
    assert made_report.text.count("| failed | ValueError: no |") == 6
    assert made_report.figures == []


def test_cells_of_different_machines_are_not_compared_in_silence(tmp_path: Path) -> None:
    made = design()
    known = stored(made, 6)[:3] + stored(made, 6, machine="two")[3:]
    text = make_report(made, collect(made, known), ATTRIBUTES, tmp_path).text
    assert "trained in 2 different environments" in text


def test_a_partial_study_says_what_is_missing(tmp_path: Path) -> None:
    text = report(tmp_path, finished=4).text
    assert "**Not finished:**" in text
    assert "| groups=4 | 1 | waiting |  |" in text


def test_a_study_without_its_baseline_is_reported_without_contrasts(tmp_path: Path) -> None:
    made = design()
    known = [cell for cell in stored(made, 6) if cell.variant != "none"]
    text = make_report(made, collect(made, known), ATTRIBUTES, tmp_path).text
    assert "| groups=2 | 2 | 2.5 [-16.6, 21.6] | no pair |" in text


def test_nothing_finished_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no cell of this sweep is finished yet; `run` trains them"):
        report(tmp_path, finished=0)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"results_dir=.*: cannot be written: "):
        report(tmp_path / "file")


def test_the_same_numbers_are_printed(tmp_path: Path) -> None:
    console = Console(width=132, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    print_report(console, report(tmp_path))
    text = console.export_text()
    assert "2.5 [-16.6, 21.6]" in text
    assert "groups=4: +2.00 points against none" in text
