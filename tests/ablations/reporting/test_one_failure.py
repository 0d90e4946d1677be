"""A single failure affects a single part: failures are planted in every function that making a report calls."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from ablations.analysis.importances import importances
from ablations.analysis.multiverse import MultiverseAnalysis
from ablations.common.parts import TRACEBACKS, Parts
from ablations.reporting.figures import FIGURES, registry
from ablations.reporting.multiverse import report_multiverse
from ablations.reporting.publish import report_study
from ablations.reporting.report import Report
from tests.builders.analyses import search_analysis, study_analysis
from tests.builders.markdown import unescaped
from tests.builders.multiverses import moved, multiverse_analysis
from tests.builders.planted import PlantedError, failing_once, functions_called
from tests.disks import NEEDS_FULL_DISK, fill_disk_for
from tests.wording import worded

PACKAGES = ("ablations/reporting", "ablations/analysis")
MODULES = {"analysis", "figures", "page", "publish", "report", "tables", "text", "multiverse"}
SHARES = 24  # of the functions, one a test
OF_SEVERAL = ("multiverse.", "tables.protocols.", "figures.protocols.")
# What puts parts together; it computes nothing of a study.
FRAME = (
    "reporting.publish.report_study", "reporting.publish._say", "reporting.report.make_report",
    "reporting.report.Report.", "reporting.report._details", "reporting.figures.registry.draw_figures",
    "reporting.tables.export.write_tables", "reporting.tables.export._texts",
    "reporting.text.not_made.", "reporting.multiverse.report_multiverse",
    "reporting.multiverse._text", "analysis.study.StudyAnalysis.folder",
)  # fmt: skip
FIGURE = "forest"
CONSOLE = Console(quiet=True)


def report(folder: Path) -> Report:
    return report_study(study_analysis(folder), CONSOLE, (FIGURE,))


def several(folder: Path) -> MultiverseAnalysis:
    return multiverse_analysis(folder, {"quick": moved(2.0, 0.5), "cifar": moved(2.0, -2.5)}, 8)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@cache
def functions() -> dict[str, CodeType]:
    """The functions called by reports on a study and on several protocols."""
    with TemporaryDirectory() as folder:
        found = functions_called(lambda: report(Path(folder)), PACKAGES)
        analysis = several(Path(folder))
        found |= functions_called(lambda: report_multiverse(analysis, CONSOLE), PACKAGES)
    return {name: code for name, code in found.items() if not name.removeprefix("ablations.").startswith(FRAME)}


def is_of_several(name: str) -> bool:
    return any(part in name for part in OF_SEVERAL)


def test_functions_of_all_modules_are_found() -> None:
    places = [name.split(".") for name in functions()]
    assert {package if package == "analysis" else module for _, package, module, *_ in places} == MODULES
    assert len(functions()) > 100
    assert sum(map(is_of_several, functions())) > 20


@pytest.mark.parametrize("share", range(SHARES))
def test_a_single_failing_function_affects_a_single_part(share: int, tmp_path: Path) -> None:
    """Everything else is made, and the report lists the failed part with its reason."""
    report(tmp_path / "whole")
    whole = files(tmp_path / "whole")
    for number, (name, code) in enumerate([*functions().items()][share::SHARES]):
        if is_of_several(name):
            continue
        analysis = study_analysis(tmp_path / str(number))
        with failing_once(code) as failed:
            made = report_study(analysis, CONSOLE, (FIGURE,))
        if not failed:  # a function of the other report
            continue
        reasons = [missing.reason for missing in made.parts.missing]
        assert reasons, f"{name} failed, and nothing is missing"
        assert all(reason.startswith("PlantedError: planted in ") for reason in reasons), name
        assert len(reasons) <= 2, f"{name} cost {[missing.name for missing in made.parts.missing]}"
        lost = whole - files(made.folder)
        assert len(lost) <= 1 or lost == {f"figures/{FIGURE}.{suffix}" for suffix in ("png", "pdf", "csv")}, name
        assert "report.md" not in lost
        text = unescaped(made.path)
        for missing in made.parts.missing:
            if missing.name != "printed report":  # printed after the report is written
                assert worded("not_made.part", name=missing.name, reason=missing.reason) in text
        assert "PlantedError" in (made.folder / TRACEBACKS).read_text(encoding="utf-8")


@pytest.mark.parametrize("share", range(4))
def test_a_single_failing_function_affects_a_single_part_of_several_protocols(share: int, tmp_path: Path) -> None:
    report_multiverse(several(tmp_path / "whole"), CONSOLE)
    whole = files(tmp_path / "whole")
    for number, (name, code) in enumerate([pair for pair in functions().items() if is_of_several(pair[0])][share::4]):
        analysis, parts = several(tmp_path / str(number)), Parts()
        with failing_once(code) as failed:
            path = report_multiverse(analysis, CONSOLE, parts)
        if not failed:
            continue
        assert 1 <= len(parts.missing) <= 2, name
        lost = whole - files(tmp_path / str(number))
        assert len(lost) <= 1 or lost == {path for path in whole if "/figures/" in path}, name
        text = unescaped(path)
        for missing in parts.missing:
            if missing.name != "printed table":
                assert worded("not_made.part", name=missing.name, reason=missing.reason) in text


@pytest.mark.parametrize("name", FIGURES)
def test_a_failing_figure_affects_only_that_figure(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> str:
        raise PlantedError("planted")

    names = [name, *(other for other in ("variants", "learning_curves") if other != name)]
    monkeypatch.setitem(registry.SKETCHES, name, fail)
    made = report_study(study_analysis(tmp_path), CONSOLE, names)
    assert [drawn.name for drawn in made.gallery.drawn] == names[1:]
    assert [missing.name for missing in made.parts.missing] == [f"figure {name}"]
    line = worded("not_made.part", name=f"figure {name}", reason="PlantedError: planted")
    assert line in unescaped(made.path)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert f"<code>figure {name}</code>: PlantedError: planted" in page
    assert f'<a href="{TRACEBACKS}">' in page


@pytest.mark.usefixtures("_drawn")
def test_a_failing_caption_affects_only_the_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Figure.text

    def fail(drawn: Figure, x: float, y: float, s: str, **options: object) -> object:
        if "Protocol of the test" in s:
            raise PlantedError("planted")
        return write(drawn, x, y, s, **options)

    monkeypatch.setattr(Figure, "text", fail)
    monkeypatch.setattr(registry, "protocol_line", lambda *_: "Protocol of the test")
    made = report_study(study_analysis(tmp_path), CONSOLE, (FIGURE,))
    assert [drawn.caption for drawn in made.gallery.drawn] == [""]
    assert [missing.name for missing in made.parts.missing] == [f"caption of figure {FIGURE}"]


@NEEDS_FULL_DISK
@pytest.mark.parametrize("file", ["figures/forest.pdf", "tables/variants.tex", "index.html"])
def test_a_disk_full_for_one_file_affects_only_that_file(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(tmp_path / "whole")
    fill_disk_for(tmp_path / "full" / file, monkeypatch)
    made = report(tmp_path / "full")
    (missing,) = made.parts.missing
    assert "No space left on device" in missing.reason
    lost = files(tmp_path / "whole") - files(tmp_path / "full")
    assert lost == ({"figures/forest.pdf", "figures/forest.csv"} if file == "figures/forest.pdf" else {file})


def test_a_search_keeps_its_other_sections(tmp_path: Path) -> None:
    with failing_once(importances.__code__):
        made = report_study(search_analysis(tmp_path), CONSOLE, ())
    assert [missing.name for missing in made.parts.missing] == ["section of importances"]
    assert "Selection (validation)" in [section.title for section in made.sections]


def test_interrupts_are_not_treated_as_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setitem(registry.SKETCHES, FIGURE, interrupt)
    with pytest.raises(KeyboardInterrupt):
        report(tmp_path)


def test_a_report_that_is_complete_again_has_no_tracebacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> str:
        raise PlantedError("planted")

    with monkeypatch.context() as patch:
        patch.setitem(registry.SKETCHES, FIGURE, fail)
        report(tmp_path)
    assert (tmp_path / TRACEBACKS).exists()
    report(tmp_path)
    assert not (tmp_path / TRACEBACKS).exists()
