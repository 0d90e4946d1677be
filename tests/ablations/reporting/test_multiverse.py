from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.common.console import make_console
from ablations.reporting.multiverse import report_multiverse, shown_frame
from tests.builders.multiverses import moved, multiverse_analysis, protocol_frame

TOPS = {"quick": moved(2.0, 0.5), "cifar": moved(2.0, -2.5), "imagenet": None}


def test_a_report_is_written_and_printed_with_its_table_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    analysis = multiverse_analysis(tmp_path, TOPS, 8)
    path = report_multiverse(analysis, make_console())
    folder = tmp_path / "groups-digits-resnet8-quick-vs-cifar-vs-imagenet"
    assert path == folder / "report.md"
    written = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
    figures = {f"figures/protocols.{suffix}" for suffix in ("png", "pdf", "csv")}
    assert written == {"report.md", "tables/protocols.csv", *figures}
    text = path.read_text()
    assert "| groups=4 | +0.48 [" in text
    assert "| contradict |" in text
    assert "[groups-digits-resnet8-cifar](../groups-digits-resnet8-cifar/report.md)" in text
    assert "| train.epochs | 4 | 30 |" in text
    assert "`sweep.factors.attention.groups=[2,4] train=imagenet`" in text  # the command for the missing protocol
    assert "Machine & Co" in text
    frame = pd.read_csv(folder / "tables" / "protocols.csv")
    assert frame["verdict"].tolist() == analysis.frame["verdict"].tolist()
    printed = capsys.readouterr().out
    assert "│ groups=4 │" in printed
    assert str(path) in " ".join(printed.split("\n"))


def test_without_a_contrast_with_a_pair_there_is_no_figure(tmp_path: Path) -> None:
    analysis = multiverse_analysis(tmp_path, {"quick": moved(1, 1), "cifar": moved(1, 1)}, 1)
    without = {
        name: replace(study, results=replace(study.results, cells=study.results.cells.query("variant != 'none'")))
        for name, study in analysis.studies.items()
    }
    analysis = replace(analysis, studies=without)
    path = report_multiverse(analysis, make_console())
    assert "no pair" in path.read_text()
    assert not (path.parent / "figures").exists()


def test_of_very_many_contrasts_the_ends_are_shown() -> None:
    frame = protocol_frame({one: {f"v{number}": "helps" for number in range(80)} for one in ("a", "b")})
    frame["mean"] = [float(name[1:]) for name in frame["variant"]]
    shown = shown_frame(frame)
    assert set(shown["variant"]) == {f"v{number}" for number in (*range(12), *range(68, 80))}
    assert len(shown) == 2 * 24
    few = protocol_frame({"a": {"v": "helps"}})
    assert shown_frame(few) is few
