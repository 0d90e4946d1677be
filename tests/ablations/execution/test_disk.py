"""Disks that are full, fill up or are read-only, and damaged files of the suite."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ablations import analyze, cli
from ablations.run import PURPOSE, run
from ablations.storage.cell_states import CellState
from ablations.storage.study import open_store
from tests.conftest import TINY
from tests.wording import worded

STUDY = "groups-digits-resnet8"


class Disk:
    """A small separate file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        self._ballast.unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs to mount a tmpfs, which is refused here")
    try:
        yield Disk(folder)
    finally:
        # Lazily, because MLflow keeps its database connections until the process ends.
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a verb in this process; returns its status and output."""

    def done(verb: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        purpose, act = {"run": (PURPOSE, run), "analyze": (analyze.PURPOSE, analyze.analyze)}[verb]
        status = cli.main(verb, purpose, act, [*TINY, "weights=off", *arguments])
        return status, *capsys.readouterr()

    return done


def run_until_the_first_cell_is_finished(then: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
    typed = [sys.executable, "-u", "-m", "ablations.run", *TINY, "weights=off", *arguments]
    with subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            if "[1/" in line:
                # Repeatedly, because a database may free space in between.
                while process.poll() is None:
                    then()
                    time.sleep(0.01)
        assert process.stderr is not None
        printed, errors = output + process.stdout.read(), process.stderr.read()
    return process.returncode, printed, errors


def states(folder: Path) -> list[CellState]:
    store = open_store(f"sqlite:///{folder / 'optuna.db'}", STUDY, create=False)
    return [cell.state for cell in store.cells()]


def test_a_full_disk_is_a_single_message_and_the_same_command_resumes_with_free_space(
    disk: Disk, call: Callable[..., tuple[int, str, str]]
) -> None:
    place = f"results_dir={disk.folder / 'results'}"
    at_once = f"error: storage=sqlite:///{disk.folder}/results/optuna.db: {worded('database.full')}\n"

    disk.fill()
    status, _, message = call("run", place, "tracking.enabled=false")
    assert (status, message) in [(2, at_once)] or "No space left on device" in message
    assert (status, message.count("\n")) == (2, 1)
    disk.make_room()

    # Both databases are on the disk, and both grow during training.
    status, printed, message = run_until_the_first_cell_is_finished(disk.fill, place, "train.epochs=40")
    assert (status, message) == (2, at_once), printed
    disk.make_room()
    finished = states(disk.folder / "results").count(CellState.FINISHED)
    assert 1 <= finished < 6
    status, printed, message = call("run", place, "train.epochs=40")
    assert (status, message) == (0, "")
    assert worded("run.to_train", cells=6, left=6 - finished) in printed
    assert states(disk.folder / "results") == [CellState.FINISHED] * 6
    client = MlflowClient(f"sqlite:///{disk.folder / 'results' / 'mlflow.db'}")
    runs = [run for run in client.search_runs(["1"]) if "cell" in run.data.tags]
    assert [run.info.status for run in runs] == ["FINISHED"] * 6

    # Full during the report: the store is unchanged.
    shutil.rmtree(disk.folder / "results" / STUDY / "figures")
    disk.fill()
    status, _, message = call("analyze", place, "train.epochs=40")
    assert (status, message.count("\n")) == (2, 1)
    assert message.startswith(f"error: results_dir={disk.folder}/results/{STUDY}")
    assert worded("files.unwritable", cause="No space left on device") in message
    assert worded("paths.goes_on") in message
    disk.make_room()
    assert call("analyze", place, "train.epochs=40", "figures=forest")[0] == 0


def test_a_read_only_folder_is_a_single_message(
    disk: Disk, finished: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    shutil.copytree(finished, disk.folder / "results")
    disk.remount("ro")
    for verb in ("run", "analyze"):
        status, _, message = call(verb, f"results_dir={disk.folder / 'results'}", "replicates=1", "train.epochs=1")
        assert (status, message.count("\n")) == (2, 1)
        assert worded("files.unwritable", cause="Read-only file system") + worded("paths.goes_on") in message


def test_a_full_disk_of_mlflow_does_not_stop_the_study(
    disk: Disk, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    places = [
        f"results_dir={tmp_path / 'results'}",
        f"tracking.uri=sqlite:///{disk.folder / 'mlflow.db'}",
        "replicates=1",
        "train.epochs=60",
    ]
    status, printed, message = run_until_the_first_cell_is_finished(disk.fill, *places)
    assert (status, message) == (0, ""), printed
    assert worded("tracking.stopped", cause="the disk is full") in printed, printed
    assert states(tmp_path / "results") == [CellState.FINISHED] * 3
    disk.make_room()
    status, printed, message = call("analyze", *places, "figures=forest", "sync=true")
    assert (status, message) == (0, "")
    client = MlflowClient(f"sqlite:///{disk.folder / 'mlflow.db'}")
    runs = [run for run in client.search_runs(["1"]) if "cell" in run.data.tags]
    assert [(run.info.status, "top1" in run.data.metrics) for run in runs] == [("FINISHED", True)] * 3


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert (
        cli.main("run", PURPOSE, run, [*TINY, "replicates=1", "train.epochs=1", "weights=off", f"results_dir={folder}"])
        == 0
    )
    return folder


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "emptied": lambda _: b"",
    "something else": lambda content: b"notes" * len(content),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_database_is_a_single_message_and_a_backup_restores_it(
    finished: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]], damage: str
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(finished, folder)
    options = [f"results_dir={folder}", "replicates=1", "train.epochs=1"]
    for name, option, verbs in (("optuna.db", "storage", ("run", "analyze")), ("mlflow.db", "tracking.uri", ("run",))):
        path = folder / name
        intact = path.read_bytes()
        path.write_bytes(DAMAGE[damage](intact))
        if (name, damage) == ("mlflow.db", "emptied"):
            continue  # MLflow creates its tables again, and is sent everything
        for verb in verbs:
            status, _, message = call(verb, *options)
            assert (status, message.count("\n")) == (2, 1), message
            assert message.startswith(f"error: {option}=sqlite:///{path}: ")
            assert "restore a backup, or " in message
        path.write_bytes(intact)
    # In another folder, because MLflow keeps its database connections until the process ends.
    folder = folder.rename(tmp_path / "again")
    status, printed, message = call("run", f"results_dir={folder}", *options[1:])
    assert (status, message) == (0, "")
    assert worded("run.finished", cells=3) in printed
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == STUDY]
    assert len([run for run in client.search_runs([experiment.experiment_id]) if run.info.status == "FINISHED"]) == 4


def test_partly_written_files_of_a_report_are_written_again(
    finished: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(finished, folder)
    files = [path for path in (folder / STUDY).rglob("*") if path.suffix in (".md", ".csv", ".pdf", ".html", ".tex")]
    before = {path: path.read_bytes() for path in files}
    for path, content in before.items():
        path.write_bytes(content[: len(content) // 2])
    assert call("analyze", f"results_dir={folder}", "replicates=1", "train.epochs=1")[0] == 0
    for path in files:
        if path.suffix != ".html":
            # The report names the folder of weights.
            again, first = (
                text.replace(str(at).encode(), b"")
                for text, at in zip((path.read_bytes(), before[path]), (folder, finished), strict=True)
            )
            assert again.replace(str(finished).encode(), b"") == first, path
