"""The verb `run` in real processes with real stores, including kills and interrupts."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import TrialState

from ablations.reporting.figures import FIGURES
from ablations.training.weights import KeptNetwork
from tests import shortcuts
from tests.conftest import DIVERGING, MEASURED, TINY, Command
from tests.wording import refusal, worded

STUDY = "groups-digits-resnet8"
KILLS = int(os.environ.get("ABLATIONS_KILLS", "3"))  # more for a drill
VARIANTS = ["none", "groups=1", "groups=4"]


def table(folder: Path) -> pd.DataFrame:
    """Returns the exact top-1 of every replicate."""
    frame = pd.read_csv(folder / STUDY / "figures" / "variants.csv", dtype={"level": str})
    rows = frame[(frame["metric"] == "top1") & (frame["kind"] == "replicate")]
    return rows[["variant", "replicate", "value"]].reset_index(drop=True)


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Returns the saved state dict of each cell."""
    stored = map(KeptNetwork.read, (folder / STUDY / "weights").iterdir())
    return {f"{kept.variant} r{kept.replicate}": kept.state for kept in stored}


def check_weights_are_kept_of_first_replicates(folder: Path) -> None:
    assert set(weights(folder)) == {f"{variant} r0" for variant in VARIANTS}


def curves(folder: Path) -> str:
    return (folder / STUDY / "figures" / "learning_curves.csv").read_text()


def check_every_cell_is_stored_once(folder: Path) -> None:
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder / 'optuna.db'}")
    wanted = sorted((variant, replicate) for variant in VARIANTS for replicate in range(2))
    finished = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted((t.user_attrs["variant"], t.user_attrs["replicate"]) for t in finished) == wanted
    # Attempts that were killed are failed trials without a reason.
    killed = [trial for trial in study.trials if trial not in finished]
    assert {(trial.state, "failure" in trial.user_attrs) for trial in killed} <= {(TrialState.FAIL, False)}

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "cell" not in run.data.tags]
    children = [run for run in runs if "cell" in run.data.tags]
    assert len(parents) == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert sorted((run.data.params["variant"], int(run.data.params["replicate"])) for run in children) == wanted
    for run in children:
        history = client.get_metric_history(run.info.run_id, "top1")
        assert [metric.step for metric in history] == [1, 2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, command: Command) -> tuple[Path, str]:
    """The results folder of a complete run, and its output."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(shortcuts.UNDRAWN)
        done = command("run", "sweep=groups", *TINY, *MEASURED, f"results_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def test_a_run_ends_in_a_table_figures_a_report_and_the_dashboard_command(undisturbed: tuple[Path, str]) -> None:
    folder, printed = undisturbed
    lines = printed.splitlines()
    assert any(line.startswith("│ groups=4 │ 2 │ ") for line in lines)
    assert lines[-2].startswith("Dashboard:")
    assert lines[-2].endswith(f"mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}")
    assert lines[-1].startswith("Then open:  http://127.0.0.1:5000/#/experiments/")
    written = {path.name for path in (folder / STUDY / "figures").iterdir()}
    drawn = set(FIGURES) - {"effects", "interactions", "tradeoffs", "edf", "comparisons", "tuning"}
    assert written == {f"{name}.{suffix}" for name in drawn for suffix in ("png", "pdf", "csv")}
    assert (folder / STUDY / "report.md").exists()
    check_weights_are_kept_of_first_replicates(folder)
    check_every_cell_is_stored_once(folder)


@pytest.mark.usefixtures("_drawn")
def test_a_second_run_trains_nothing_and_prints_the_same_table(undisturbed: tuple[Path, str], command: Command) -> None:
    folder, printed = undisturbed
    done = command("run", "sweep=groups", *TINY, f"results_dir={folder}")
    assert done.returncode == 0
    assert worded("run.finished", cells=6) in done.stdout
    start = printed.index("┏")
    assert done.stdout[done.stdout.index("┏") :] == printed[start:]
    check_every_cell_is_stored_once(folder)


@pytest.mark.usefixtures("_drawn")
def test_analyze_reproduces_the_report_from_stored_results(undisturbed: tuple[Path, str], command: Command) -> None:
    folder, printed = undisturbed
    before = {
        path: path.read_bytes() for path in (folder / STUDY).rglob("*.*") if path.suffix in (".csv", ".md", ".pdf")
    }
    for path in before:
        path.unlink()
    done = command("analyze", "sweep=groups", *TINY, f"results_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert {path: path.read_bytes() for path in before} == before
    for line in printed[printed.index("┏") : printed.index("Dashboard:")].splitlines():
        assert line in done.stdout


def test_a_run_that_is_killed_repeatedly_ends_like_an_undisturbed_one(
    undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    arguments = [sys.executable, "-u", "-m", "ablations.run", "sweep=groups", *TINY, f"results_dir={tmp_path}"]
    moments = random.Random(0)
    kills = 0
    for _ in range(KILLS):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            # Kills are timed by printed lines plus a random delay: a fast machine could finish before a fixed delay.
            assert process.stdout is not None
            for _ in range(moments.randint(0, 6)):
                process.stdout.readline()
            time.sleep(moments.uniform(0, 0.5))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            assert process.stderr is not None
            assert process.stderr.read() == ""
    assert kills > 0
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(table(tmp_path), table(undisturbed[0]), check_exact=True)
    assert curves(tmp_path) == curves(undisturbed[0])
    check_every_cell_is_stored_once(tmp_path)
    check_weights_are_kept_of_first_replicates(tmp_path)
    expected = weights(undisturbed[0])
    for name, state in weights(tmp_path).items():
        assert all(torch.equal(value, expected[name][key]) for key, value in state.items()), name


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_stores_finished_cells_and_leaves_no_running_trial(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    arguments = [sys.executable, "-u", "-m", "ablations.run", *TINY, "train.epochs=40", "tracking.enabled=false",
                 f"results_dir={tmp_path}"]  # fmt: skip
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "[1/6]" in line:
                process.send_signal(number)
                break
        printed, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    assert errors == ""
    assert "Interrupted: " in printed
    assert worded("run.goes_on") in printed
    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    states = [trial.state for trial in study.trials]
    assert 1 <= states.count(TrialState.COMPLETE) < 6
    assert set(states) <= {TrialState.COMPLETE, TrialState.FAIL}  # FAIL is absent if the signal came between two cells


def test_a_study_has_one_driver_at_a_time(tmp_path: Path, command: Command) -> None:
    arguments = [sys.executable, "-u", "-m", "ablations.run", *TINY, "train.epochs=2000", "tracking.enabled=false",
                 f"results_dir={tmp_path}"]  # fmt: skip
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if worded("run.to_train", cells=6, left=6) in line:
                break
        second = command("run", *TINY, "train.epochs=2000", "tracking.enabled=false", f"results_dir={tmp_path}")
        process.kill()
    assert second.returncode == 2
    assert re.match("error: " + refusal(f"study={STUDY}", "lock.held", process=process.pid), second.stderr)


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("run", ["sweep=group"], "error: " + refusal("sweep=group", "options.no_such", what="sweep", near="groups")),
        ("run", ["sweep.factors.attention.groups=[3]"], "error: sweep.factors.attention.groups=3: at layer1.0.sa"),
        (
            "run",
            ["results_dir=/dev/null/x"],
            "error: " + refusal("results_dir=/dev/null/x", "files.unwritable", cause="Not a directory"),
        ),
        (
            "run",
            ["storage=sqlite:////nowhere/x.db"],
            "error: " + refusal("storage=sqlite:////nowhere/x.db", "database.no_folder", folder="/nowhere"),
        ),
        ("run", ["study=../x"], "error: " + refusal("study=../x", "paths.no_name")),
        (
            "run",
            ["tracking.uri=http://127.0.0.1:9"],
            "error: " + refusal("tracking.uri=http://127.0.0.1:9", "tracking.silent"),
        ),
        ("analyze", [], "error: " + refusal(f"study={STUDY}", "study.unstored", url="sqlite:///")),
        ("analyze", ["--fast"], "error: " + refusal("--fast", "options.no_such", what="flag")),
    ],
)
def test_invalid_input_is_one_message_and_status_2(
    verb: str, arguments: list[str], message: str, tmp_path: Path, command: Command
) -> None:
    serial = "launcher=serial"  # others take seconds to start
    done = command(verb, serial, f"results_dir={tmp_path}", *arguments)
    assert done.returncode == 2
    assert re.match(message, done.stderr)
    assert "Traceback" not in done.stderr


def test_a_run_in_which_every_cell_diverges_reports_it_and_exits_with_1(tmp_path: Path, command: Command) -> None:
    done = command("run", *TINY, *DIVERGING, "replicates=1", f"results_dir={tmp_path}")
    assert (done.returncode, done.stderr) == (1, "")
    report = (tmp_path / STUDY / "report.md").read_text()
    assert report.count("| diverged | " + worded("train.diverged", loss="nan", where="training, in epoch 1")) == 3
    assert worded("conclusions.none_finished", how="diverged") in report
    (parent,) = [
        run
        for run in MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["1"])
        if "cell" not in run.data.tags
    ]
    assert parent.info.status == "FAILED"


def test_mlflow_has_report_and_figures_and_no_weights(undisturbed: tuple[Path, str]) -> None:
    folder, _ = undisturbed
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STUDY)
    assert experiment is not None
    (parent,) = [run for run in client.search_runs([experiment.experiment_id]) if "cell" not in run.data.tags]
    artifacts = {info.path for info in client.list_artifacts(parent.info.run_id)}
    assert {"figures", "report.md"} <= artifacts
    assert "weights" not in artifacts
    assert "figures/cams.png" in {info.path for info in client.list_artifacts(parent.info.run_id, "figures")}


def test_another_protocol_is_refused_without_changes(undisturbed: tuple[Path, str], command: Command) -> None:
    folder, _ = undisturbed
    before = table(folder)
    done = command("run", *TINY, "train.epochs=3", f"results_dir={folder}")
    assert done.returncode == 2
    assert done.stderr.endswith(f"  {worded('study.difference', option='train.epochs', stored=2, asked=3)}\n")
    check_every_cell_is_stored_once(folder)
    pd.testing.assert_frame_equal(table(folder), before)
