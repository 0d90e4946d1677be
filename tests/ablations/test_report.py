from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from ablations.errors import UsageError
from ablations.report import Report, make_report, print_report
from ablations.results import collect
from tests.ablations.test_results import design, stored

ATTRIBUTES = {"command": "python -m ablations.run sweep=groups", "data_fingerprint": "f00d"}


def report(folder: Path, finished: int = 6) -> Report:
    made = design()
    return make_report(made, collect(made, stored(made, finished)), ATTRIBUTES, folder)


def test_the_report_has_question_answer_table_figures_protocol_and_command(tmp_path: Path) -> None:
    text = report(tmp_path).path.read_text()
    for part in (
        "How many groups should shuffle attention use",
        "- groups=4: +2.0 points against none (n = 2, 95 % CI +2.0 to +2.0): the interval excludes 0.",
        "| groups=2 | 2 | 2.5 [-16.6, 21.6] | +1.0 [+1.0, +1.0] |",
        "![groups](figures/groups.png)",
        "| train.epochs | 6 |",
        "python -m ablations.run sweep=groups",
        "Data fingerprint: f00d",
        "| cpu | one |",
    ):
        assert part in text
    assert "Not finished" not in text
    assert (tmp_path / "figures" / "groups.png").exists()


def test_one_replicate_gets_no_interval_and_no_judgement(tmp_path: Path) -> None:
    text = report(tmp_path, finished=3).text
    assert "| groups=2 | 1 | 1.0 | +1.0 |" in text
    assert "- groups=2: +1.0 points against none; one replicate says nothing about how sure that is." in text
    assert "95 % CI +" not in text


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
    assert "groups=4: +2.0 points against none" in text
