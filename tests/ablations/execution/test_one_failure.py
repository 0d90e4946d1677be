"""A single failure affects a single part: runs and analyses with a missing part, and their other parts."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from ablations import analyze, cli
from ablations import run as run_verb
from ablations.common.parts import TRACEBACKS
from ablations.reporting import publish
from ablations.reporting.figures import registry
from ablations.storage.cell_states import CellState
from ablations.storage.study import open_store
from tests.builders.planted import PlantedError
from tests.conftest import TINY
from tests.wording import worded

STUDY = "groups-digits-resnet8"
TYPED = (*TINY, "replicates=1", "train.epochs=1", "weights=first")
VERBS = {"run": (run_verb.PURPOSE, run_verb.run), "analyze": (analyze.PURPOSE, analyze.analyze)}


def call(verb: str, folder: Path, *arguments: str) -> int:
    return cli.main(verb, *VERBS[verb], [*TYPED, f"results_dir={folder}", *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a finished study without a report, which tests must not modify."""
    folder = tmp_path_factory.mktemp("finished")
    assert call("run", folder, "tracking.enabled=false") == 0
    shutil.rmtree(folder / STUDY / "figures")
    return folder


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "results"))


def fail(*_: object, **__: object) -> str:
    raise PlantedError("planted")


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder / STUDY).as_posix() for path in (folder / STUDY).rglob("*") if path.is_file()}


def parent(folder: Path) -> tuple[Run, set[str]]:
    """Returns the run of the study in MLflow, and its artifacts."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    (run,) = [run for run in client.search_runs([experiment.experiment_id]) if "cell" not in run.data.tags]
    paths = {info.path for info in client.list_artifacts(run.info.run_id)}
    return run, paths | {info.path for info in client.list_artifacts(run.info.run_id, "figures")}


def test_a_run_whose_figure_fails_makes_the_rest_and_ends_mlflows_run(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.SKETCHES, "variants", fail)
    assert call("run", results) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    line = worded("not_made.part", name="figure variants", reason="PlantedError: planted")
    assert line in printed.out
    assert f"Tracebacks: {results / STUDY / TRACEBACKS}" in printed.out
    text = (results / STUDY / "report.md").read_text(encoding="utf-8")
    assert line in text
    assert worded("not_made.incomplete", file=TRACEBACKS) in text
    assert {"index.html", "figures/learning_curves.png", "figures/gates.png", "tables/variants.tex"} <= files(results)
    assert "figures/variants.png" not in files(results)
    run, artifacts = parent(results)
    assert run.info.status == "FINISHED"
    assert {"report.md", "index.html", TRACEBACKS, "figures/gates.png"} <= artifacts
    assert line in run.data.tags["mlflow.note.content"]

    monkeypatch.undo()
    assert call("run", results, "tracking.enabled=false") == 0
    assert "figures/variants.png" in files(results)
    assert TRACEBACKS not in files(results)


@pytest.mark.parametrize("part", ["write_page", "make_sections", "latex_table", "number_macros", "conclusions"])
def test_an_analysis_with_a_failing_part_has_status_1_and_the_other_parts(
    part: str, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ablations.reporting import report
    from ablations.reporting.tables import export

    for module in (publish, report, export):
        if hasattr(module, part):
            monkeypatch.setattr(module, part, fail)
    (results / STUDY / "index.html").unlink()
    assert call("analyze", results) == 1
    assert "PlantedError: planted" in capsys.readouterr().out
    paths = files(results)
    assert {"report.md", "tables/variants.csv", "figures/variants.png"} <= paths
    assert ("index.html" in paths) == (part != "write_page")


def test_named_figures_are_drawn_despite_a_failing_one(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.SKETCHES, "variants", fail)
    assert call("analyze", results, "figures=[variants,learning_curves]") == 1
    assert worded("not_made.part", name="figure variants", reason="PlantedError: planted") in capsys.readouterr().out
    assert "figures/learning_curves.png" in files(results)


def test_an_artifact_that_mlflow_refuses_is_the_only_missing_one(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MlflowClient.log_artifact

    def refuse(client: MlflowClient, run_id: str, path: str, folder: str | None = None) -> None:
        if path.endswith("index.html"):
            raise PlantedError("planted")
        log(client, run_id, path, folder)

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    assert call("run", results) == 1
    reason = worded("not_made.part", name="MLflow artifact index.html", reason="PlantedError: planted")
    assert reason in capsys.readouterr().out
    run, artifacts = parent(results)
    assert run.info.status == "FINISHED"
    assert "report.md" in artifacts
    assert "index.html" not in artifacts


def test_an_artifact_store_that_refuses_everything_is_tried_three_times(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def refuse(*arguments: object) -> None:
        asked.append(arguments)
        raise PlantedError("planted")

    monkeypatch.setattr(MlflowClient, "log_artifact", refuse)
    assert call("run", results) == 1
    assert len(asked) == 3
    assert worded("not_made.artifacts", number=3) in capsys.readouterr().out
    assert parent(results)[0].info.status == "FINISHED"


@pytest.mark.parametrize("error", [KeyboardInterrupt, BrokenPipeError])
def test_mlflows_run_ends_however_the_report_ends(
    error: type[BaseException], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object) -> None:
        raise error

    monkeypatch.setattr(publish, "print_report", end)
    monkeypatch.setattr(cli.command_line.os, "dup2", lambda *_: None)
    assert call("run", results) in (130, 141)
    assert parent(results)[0].info.status == "FINISHED"


def break_cell(folder: Path, outcome: str) -> None:
    with sqlite3.connect(folder / "optuna.db") as database:
        change = "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'outcome' AND trial_id = 1"
        assert database.execute(change, (outcome,)).rowcount == 1
    database.close()


@pytest.mark.parametrize("outcome", ['"{"', '"[]"', '"{}"', '"{\\"result\\": 3}"', "3", "null"])
def test_an_unreadable_cell_is_left_out_and_trained_again(
    outcome: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_cell(results, outcome)
    assert call("analyze", results, "tracking.enabled=false") == 1
    assert worded("not_made.part", name="cell none r0", reason="the stored outcome cannot be read") in (
        capsys.readouterr().out
    )
    text = (results / STUDY / "report.md").read_text(encoding="utf-8")
    assert "| none | 0 | unreadable | the stored outcome cannot be read" in text
    assert worded("conclusions.unreadable", cells="1 stored cell", are="is") in text
    assert "| groups=1 | 1 |" in text
    assert call("run", results, "tracking.enabled=false") == 0
    assert worded("run.to_train", cells=3, left=1) in capsys.readouterr().out
    cells = open_store(f"sqlite:///{results / 'optuna.db'}", STUDY, create=False).cells()
    assert [cell.state for cell in cells] == [CellState.FINISHED] * 3


def test_a_cell_with_an_incomplete_result_is_left_out(results: Path) -> None:
    break_cell(results, '"{\\"result\\": {\\"top1\\": 3}}"')
    assert call("analyze", results, "tracking.enabled=false") == 1
    text = (results / STUDY / "report.md").read_text(encoding="utf-8")
    assert "| none | 0 | unreadable | the stored outcome cannot be read (KeyError" in text


def test_a_run_that_stops_at_an_error_is_ended_in_mlflow(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ablations.execution.driver import Driver

    monkeypatch.setattr(Driver, "train", fail)
    with pytest.raises(PlantedError):
        call("run", results, "replicates=2")
    assert parent(results)[0].info.status == "FAILED"


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no weights")])
def test_unreadable_weights_affect_only_their_network(results: Path, change: Callable[[Path], object]) -> None:
    paths = sorted((results / STUDY / "weights").iterdir())
    change(paths[0])
    is_damaged = paths[0].exists()
    assert call("analyze", results, "tracking.enabled=false") == (1 if is_damaged else 0)
    assert {"figures/cams.png", "figures/gates.png", "figures/subfeatures.png"} <= files(results)
