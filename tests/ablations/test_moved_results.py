"""Verbs work on results folders that were moved, copied, linked or restored from a backup."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from mlflow import MlflowClient

from ablations import analyze, claims, cli
from ablations.run import PURPOSE, run
from tests.conftest import TINY, Command
from tests.wording import refusal, worded

STUDY = "groups-digits-resnet8"
OPTIONS = (*TINY, "train.epochs=1", "device=cpu")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a verb in this process; returns its exit status, output and errors."""

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
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one replicate, with MLflow."""
    folder = tmp_path_factory.mktemp("finished") / "results"
    assert cli.main("run", PURPOSE, run, [*OPTIONS, "replicates=1", f"results_dir={folder}"]) == 0
    return folder


def move(old: Path) -> Path:
    return old.rename(old.parent.parent / "moved")


def copy(old: Path) -> Path:
    return Path(shutil.copytree(old, old.parent.parent / "copied"))


def link(old: Path) -> Path:
    moved = move(old)
    (moved.parent / "linked").symlink_to(moved)
    return moved.parent / "linked"


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def report_in_mlflow(folder: Path) -> str:
    """Reads the report at its artifact URI in MLflow. (MLflow's client caches the earlier one.)"""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    (parent,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{STUDY}'")
    assert parent.info.status == "FINISHED"
    artifacts = Path(unquote(urlsplit(parent.info.artifact_uri).path))
    assert artifacts.is_relative_to(folder.resolve())
    return (artifacts / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("how", [move, copy, link])
def test_verbs_that_only_read_work_elsewhere_and_do_not_change_the_original(
    finished: Path, tmp_path: Path, how: Callable[[Path], Path], call: Call
) -> None:
    old = Path(shutil.copytree(finished, tmp_path / "first" / "results"))
    folder = how(old)
    before, original = files(old), files(finished)
    status, _, message = call("analyze", *OPTIONS, "replicates=1", f"results_dir={folder}")
    assert (status, message) == (0, "")
    assert report_in_mlflow(folder).startswith(f"# {STUDY}")
    status, _, message = call("claims", f"results_dir={folder}")
    assert (status, message) == (0, "")
    assert files(old) == before
    assert files(finished) == original


def test_a_restored_backup_of_a_running_study_can_be_resumed(finished: Path, tmp_path: Path, command: Command) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "restored"))
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    lock = folder / f".{STUDY}.lock"  # of a process that no longer exists
    lock.write_text('{"host": "another", "process": 1, "since": "long ago"}', encoding="utf-8")
    before = files(finished)
    done = command("run", *OPTIONS, "replicates=2", f"results_dir={folder}")
    assert (done.returncode, done.stderr) == (0, "")
    assert worded("run.to_train", cells=6, left=3) in done.stdout
    assert done.stdout.count("MLflow") == 1  # the destination, and no message about lost runs
    assert report_in_mlflow(folder) == (folder / STUDY / "report.md").read_text(encoding="utf-8")
    assert files(finished) == before


def test_a_dangling_link_is_one_message(tmp_path: Path, call: Call) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    status, _, message = call("run", *OPTIONS, f"results_dir={tmp_path / 'link'}")
    expected = refusal(
        f"results_dir={tmp_path / 'link'}", "paths.dangling", place=tmp_path / "link", target=tmp_path / "unmounted"
    )
    assert (status, message.count("\n")) == (2, 1)
    assert re.match("error: " + expected, message)
