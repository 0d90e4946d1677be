from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import UsageError
from ablations.design import Design
from ablations.reporting.figures import FIGURES
from ablations.reporting.publish import print_report, report_study
from ablations.reporting.report import Report, make_report
from ablations.reporting.text.markdown import markdown_text
from ablations.storage.cell_states import CellState
from ablations.storage.study import StoredCell
from tests.builders.attributes import ATTRIBUTES
from tests.builders.cells import configuration, design, stored
from tests.disks import NEEDS_FULL_DISK, fill_disk_for
from tests.wording import refusal, worded

VERDICT = "groups=4 against none: helps (n = 2, difference +2.00, 95 % CI "


def analysis(folder: Path, made: Design, known: Iterable[StoredCell], **attributes: object) -> StudyAnalysis:
    return StudyAnalysis(configuration(), made, collect(made, known), ATTRIBUTES | attributes, folder)


def report(folder: Path, finished: int = 6, figures: Sequence[str] = ("variants", "forest")) -> Report:
    made = design()
    return make_report(analysis(folder, made, stored(made, finished)), figures)


def test_the_report_has_question_answer_table_figures_protocol_and_command(tmp_path: Path) -> None:
    text = report(tmp_path, figures=tuple(FIGURES)).text
    for part in (
        "How many groups should shuffle attention use",
        "- " + VERDICT,
        "- " + worded("conclusions.highest", named="groups=4", top1="3.5 [-15.6, 22.6]", n=2),
        "| groups=2 | 2 | 2.5 [-16.6, 21.6] | +1.00 [",
        f"| groups=2 | resnet8 | sa groups=2 | {worded('capacity.groups', number=2, channels='8, 16, 32')} |",
        f"![{FIGURES['variants']}](figures/variants.png)",
        f"![{FIGURES['forest']}](figures/forest.png)",
        "- effects: " + worded("figures.not_crossed"),
        "- tradeoffs: " + worded("figures.no_search"),
        "- gates: "
        + markdown_text(worded("figures.no_weights", study="groups-digits-resnet8", folder=tmp_path / "weights")),
        "| train.epochs | 4 |",
        "python -m ablations.run sweep=groups",
        "| data fingerprint | f00d |",
        worded("scope.data", train="1,500", test="500", number=10, classes="0, 1, 2,"),
        "| cpu | one |",
    ):
        assert part in text
    assert "Not finished" not in text
    assert (tmp_path / "figures" / "variants.png").exists()


def test_one_replicate_has_no_interval_and_no_verdict(tmp_path: Path) -> None:
    text = report(tmp_path, finished=3).text
    assert "| groups=2 | 1 | 1.0 | +1.00 | no verdict |" in text
    assert "- " + worded("conclusions.once") in text
    assert "95 % CI +" not in text


def test_failed_cells_are_counted_with_their_reasons(tmp_path: Path) -> None:
    made = design()
    known = stored(made, 6)
    known[4] = replace(known[4], state=CellState.FAILED, outcome=None, failure="Traceback\nValueError: planted\n")
    text = make_report(analysis(tmp_path, made, known), ["forest"]).text
    assert "- " + worded("conclusions.failed", cells="1 cell", are="is") in text
    assert "| groups=2 | 1 | failed | ValueError: planted |" in text


def test_a_study_with_only_failed_cells_is_reported_with_the_reasons(tmp_path: Path) -> None:
    made = design()
    known = [replace(cell, state=CellState.FAILED, outcome=None, failure="ValueError: no") for cell in stored(made, 6)]
    made_report = make_report(analysis(tmp_path, made, known), ["forest"])
    assert worded("conclusions.none_finished", how="failed") in made_report.text
    assert made_report.text.count("| failed | ValueError: no |") == 6
    assert made_report.gallery.drawn == []
    assert made_report.gallery.left_out == {"forest": worded("figures.none_finished")}


def test_cells_of_different_machines_cause_a_warning(tmp_path: Path) -> None:
    made = design()
    known = stored(made, 6)[:3] + stored(made, 6, machine="two")[3:]
    text = make_report(analysis(tmp_path, made, known), ["forest"]).text
    assert worded("conclusions.mixed_machines", number=2) in text


def test_a_partial_study_lists_missing_cells(tmp_path: Path) -> None:
    text = report(tmp_path, finished=4).text
    assert "**Not finished:**" in text
    assert "| groups=4 | 1 | interrupted |  |" in text


def test_a_study_without_its_baseline_is_reported_without_contrasts(tmp_path: Path) -> None:
    made = design()
    known = [cell for cell in stored(made, 6) if cell.variant != "none"]
    text = make_report(analysis(tmp_path, made, known), ["forest"]).text
    assert "| groups=2 | 2 | 2.5 [-16.6, 21.6] | no pair |  |" in text


def test_the_opening_is_the_text_up_to_the_tables(tmp_path: Path) -> None:
    written_report = report(tmp_path)
    assert written_report.text.startswith(written_report.opening)
    assert "| groups=2 | 2 | 2.5 [-16.6, 21.6] |" in written_report.opening
    assert "![" not in written_report.opening
    assert (written_report.folder, written_report.path) == (tmp_path, tmp_path / "report.md")


def test_a_report_without_figures_is_written_to_a_new_folder(tmp_path: Path) -> None:
    new_report = report(tmp_path / "new", figures=())
    new_report.write()
    assert new_report.path.read_text(encoding="utf-8") == new_report.text
    assert "Figures that cannot be drawn" not in new_report.text


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=refusal(f"results_dir={tmp_path / 'file'}", "files.unwritable", cause="")):
        report_study(analysis(tmp_path / "file", design(), stored(design(), 6)), Console(quiet=True), ("forest",))


@NEEDS_FULL_DISK
def test_a_failed_write_keeps_the_earlier_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = report(tmp_path, 3, figures=())
    before.write()
    fill_disk_for(before.path, monkeypatch)
    cause = "No space left on device"
    with pytest.raises(UsageError, match=refusal(f"results_dir={before.path}", "files.unwritable", cause=cause)):
        report_study(analysis(tmp_path, design(), stored(design(), 6)), Console(quiet=True), ())
    assert before.path.read_text(encoding="utf-8") == before.text


def test_the_same_numbers_are_printed(tmp_path: Path) -> None:
    console = Console(width=132, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    print_report(console, report(tmp_path))
    text = console.export_text()
    assert "2.5 [-16.6, 21.6]" in text
    assert VERDICT in " ".join(text.split())


def test_verdicts_are_in_table_text_and_forest_plot_and_corrected_for_interim_analyses(tmp_path: Path) -> None:
    made = design(9)
    known = []
    for cell in stored(made, 27):
        assert cell.outcome is not None
        number = cell.replicate
        top1 = {"none": 50 + 0.5 * number, "groups=2": 55 + 0.6 * number, "groups=4": 50.6 + 0.5 * (5 * number % 9)}
        result = cell.outcome["result"] | {"top1": top1[cell.variant]}
        known.append(replace(cell, outcome=cell.outcome | {"result": result}))
    without_interims = make_report(analysis(tmp_path, made, known), ["forest"])
    assert "| +5.40 [+5.19, +5.61] | helps |" in without_interims.text
    assert (
        f"groups=2 against none: helps ({worded('conclusions.no_interval', n=9, points='+5.40')}"
        in without_interims.text
    )
    assert [contrast.interim for contrast in without_interims.analysis.contrasts] == [None, None]
    with_interims = make_report(analysis(tmp_path, made, known, looks=[9, 12, 16]), ["forest"])
    frame = pd.read_csv(tmp_path / "figures" / "forest.csv")
    assert frame["verdict"].tolist() == ["helps", "undecided"]
    assert frame["interim"].tolist() == [9, 9]
    before, after = without_interims.analysis.contrasts[0].p, with_interims.analysis.contrasts[0].p
    assert before is not None
    assert after is not None
    assert after == pytest.approx(before / (9 / 16) ** 2)
    assert worded("conclusions.added", trained=27, most=48) in with_interims.text
