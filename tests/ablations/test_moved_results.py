"""Results folders that are moved, copied, restored from a backup, shared or mounted elsewhere: every verb goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations import analyze, claims, cli
from ablations.run import PURPOSE, run
from tests.conftest import TINY
from tests.wording import worded

STUDY = "groups-digits-resnet8"
OPTIONS = (*TINY, "train.epochs=1", "device=cpu")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a verb in this process; returns its status and what it printed."""

    def done(verb: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        purpose, act = {
            "run": (PURPOSE, run),
            "analyze": (analyze.PURPOSE, analyze.analyze),
            "claims": (claims.PURPOSE, claims.claims),
        }[verb]
        status = cli.main(verb, purpose, act, arguments)
        return status, *capsys.readouterr()

    return done


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: Path) -> Path:
    """A study of one replicate, with MLflow."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    folder.mkdir()
    shutil.copy(mlflow_tables, folder / "mlflow.db")
    assert cli.main("run", PURPOSE, run, [*OPTIONS, "replicates=1", f"results_dir={folder}"]) == 0
    return folder


@pytest.fixture
def old(finished: Path, tmp_path: Path) -> Path:
    """The same, made in a place that it is about to leave."""
    folder = Path(shutil.copytree(finished, tmp_path / "first" / "results"))
    assert cli.main("run", PURPOSE, run, [*OPTIONS, "replicates=1", f"results_dir={folder}"]) == 0
    return folder


def move(old: Path) -> Path:
    return old.rename(old.parent.parent / "moved")


def copy(old: Path) -> Path:
    return Path(shutil.copytree(old, old.parent.parent / "copied"))


def link(old: Path) -> Path:
    place = move(old)
    (place.parent / "linked").symlink_to(place)
    return place.parent / "linked"


def restore(old: Path) -> Path:
    """As a backup that was taken while the study ran gives it back: other times, and a lock that nobody holds."""
    place = copy(old)
    shutil.rmtree(old)
    for path in place.rglob("*"):
        os.utime(path, (1, 1))
    (place / f".{STUDY}.lock").write_text('{"host": "another", "process": 1, "since": "long ago"}', encoding="utf-8")
    return place


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report_in_mlflow(folder: Path) -> str:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    (parent,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{STUDY}'")
    assert parent.info.status == "FINISHED"
    return Path(client.download_artifacts(parent.info.run_id, "report.md")).read_text(encoding="utf-8")


@pytest.mark.parametrize("how", [move, copy, link, restore])
@pytest.mark.usefixtures("_undrawn")
def test_elsewhere_a_study_goes_on_and_nothing_is_written_to_the_old_place(
    old: Path, how: Callable[[Path], Path], call: Call
) -> None:
    folder = how(old)
    before = files(old)
    place = f"results_dir={folder}"
    status, printed, message = call("analyze", *OPTIONS, "replicates=1", place)
    assert (status, message) == (0, "")
    assert report_in_mlflow(folder)  # which the dashboard shows, before MLflow is sent anything
    status, printed, message = call("run", *OPTIONS, "replicates=2", place)
    assert (status, message) == (0, "")
    assert worded("run.to_train", cells=6, left=3) in printed
    assert "MLflow" not in printed
    assert report_in_mlflow(folder) == (folder / STUDY / "report.md").read_text(encoding="utf-8")
    status, _, message = call("claims", place)
    assert (status, message) == (0, "")
    assert files(old) == before
