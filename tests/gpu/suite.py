"""Measures whole studies: digits and CIFAR-10, cells per hour, energy from the benchmark, GPU metrics in MLflow."""

from __future__ import annotations

import math
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ablations.common.urls import sqlite_url
from ablations.config.launcher import LAUNCHERS, options_of_launcher
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.study import find_study
from tests.gpu.measuring import NotMeasuredError, Options, Task
from tests.gpu.results import Value

ROOT = Path(__file__).parents[2]
EPOCHS = 30  # epochs of a cell, for cells per hour
CELLS, SECONDS, AGAIN = "cells with a result", "duration, s", "cells trained again"
HOURLY, EPOCH, TOP1 = "cells an hour, extrapolated to 30 epochs", "epoch, s", "top-1 %, mean"
PASSED, FAILED, RUNS, GPU_METRICS = "tests passed", "tests failed", "runs in MLflow", "GPU metrics of a run"
JOULES = "J an image"
_GRACE = 20.0  # seconds for a study to stop and store its results
# The files with tests marked `cuda`, the fastest first.
CUDA_TESTS = (
    "tests/ablations/measure", "tests/ablations/data", "tests/ablations/training", "tests/sa_core/fused/test_gpu.py",
)  # fmt: skip
SMALL_STUDY = ("sweep=groups", "sweep.factors.attention.groups=[1,4]", "replicates=2", "train.epochs=2", "measure=off")
TINY_DATA = ("train.batch_size=8", "data.train_images=24", "data.test_images=20", "launcher=serial")
# Images of CIFAR's size that need no download, and its recipe.
LARGE = (
    "model=resnet20", "train.batch_size=128", "train.learning_rate=0.4", "data.train_images=50000",
    "data.resolution=32",
)  # fmt: skip
LEAN = ("weights=off", "predictions=off", "tracking.enabled=false")
TRAINED_AT_ONCE = (1, 4, 8, 16)


def tests(options: Options) -> Sequence[Task]:
    """Returns the task that runs the tests that need a GPU."""
    return [Task("tests marked cuda", "", (PASSED, FAILED), "pytest -m cuda", partial(_tests, options))]


def digits(options: Options) -> Sequence[Task]:
    """Returns the task that runs the first study, which a later call resumes."""
    act = partial(_study, options, _digits_study(options), "gpu-digits")
    return [Task("small study on digits", "", (CELLS, SECONDS, TOP1), "2 replicates, 2 epochs, 3 variants", act)]


def resumed(options: Options) -> Sequence[Task]:
    """Returns the task that resumes the first study."""
    act = partial(_resumed, options)
    return [Task("small study on digits, once more", "", (AGAIN, SECONDS), "nothing is left to train", act)]


def hourly(options: Options) -> Sequence[Task]:
    """Returns the tasks that measure cells per hour, by the number of concurrent cells."""
    return [
        Task(
            f"resnet20 with SA, {at_once} at once",
            "",
            (HOURLY, EPOCH, SECONDS),
            f"{_epochs(options)} epochs of 50,000 images of digits at 32 pixels, batch 128, {_sharing(at_once)}; "
            f"an hour / ({EPOCHS} epochs at the mean pace + the rest of the duration) × cells at once",
            partial(_hourly, options, at_once),
        )
        for at_once in (TRAINED_AT_ONCE[:1] if options.tiny else TRAINED_AT_ONCE)
    ]


def bench(options: Options) -> Sequence[Task]:
    """Returns the task that measures energy with the benchmark."""
    protocol = "bench of sweep=rivals with resnet8, 1 s a comparison; energy counter of the whole GPU"
    return [Task("resnet8 with SA, training step", "", (JOULES, SECONDS), protocol, partial(_bench, options))]


def cifar(options: Options) -> Sequence[Task]:
    """Returns the task that runs the study on CIFAR-10, which each call resumes up to its time limit."""
    act = partial(_cifar, options)
    protocol = "sweep=groups, resnet20, recipe cifar, 2 replicates; stopped at the limit of the part and resumed"
    return [Task("sweep=groups on CIFAR-10", "", (CELLS, SECONDS, TOP1), protocol, act)]


def mlflow(options: Options) -> Sequence[Task]:
    """Returns the task that checks the MLflow records of the study on digits."""
    return [
        Task("small study on digits", "", (RUNS, GPU_METRICS), "read from MLflow's database", partial(_mlflow, options))
    ]


def _tests(options: Options) -> Mapping[str, Value]:
    paths = CUDA_TESTS[1:2] if options.tiny else CUDA_TESTS
    report = options.out / "tests.xml"
    parallel = ["-n", "8", "--dist", "load"] if options.device == "cuda" and find_spec("xdist") else []
    arguments = ["-m", "cuda", "-q", "--tb=short", "-p", "no:cacheprovider", *parallel, f"--junitxml={report}", *paths]
    with suppress(RuntimeError):  # failed tests are counted below
        _finished("pytest", arguments, options)
    if not report.exists():
        raise RuntimeError("pytest wrote no report")
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, skipped = (sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "skipped"))
    bad = sum(int(suite.get(name, 0)) for suite in suites for name in ("failures", "errors"))
    if total == skipped:
        raise NotMeasuredError(f"all {skipped} tests were skipped" if skipped else "no test was collected")
    return {PASSED: Value(total - bad - skipped, total), FAILED: Value(bad, total)}


def _digits_study(options: Options) -> list[str]:
    return [*SMALL_STUDY, "study=gpu-digits", *((*TINY_DATA, "weights=off") if options.tiny else ())]


def _study(options: Options, overrides: Sequence[str], study: str) -> Mapping[str, Value]:
    """Runs a study to its end or its time limit; returns its progress."""
    started = time.monotonic()
    _finished("ablations.run", [*_shared(options), *overrides], options)
    seconds = time.monotonic() - started
    done = [cell for cell in _cells(options, study) if cell.state is CellState.FINISHED]
    found = {CELLS: Value(len(done), 1), SECONDS: Value(seconds, 1)}
    if done:
        top1 = [_result(cell)["top1"] for cell in done]
        found[TOP1] = Value(statistics.fmean(top1), len(top1))
    return found


def _resumed(options: Options) -> Mapping[str, Value]:
    before = {cell.key: cell.number for cell in _cells(options, "gpu-digits")}
    if not before:
        raise NotMeasuredError("there is no such study; run call 1 first")
    found = _study(options, _digits_study(options), "gpu-digits")
    again = [cell for cell in _cells(options, "gpu-digits") if before.get(cell.key) != cell.number]
    return {AGAIN: Value(len(again), 1), SECONDS: found[SECONDS]}


def _sharing(at_once: int) -> str:
    """Returns the options of a launcher that trains `at_once` cells concurrently on one GPU."""
    if at_once == 1:
        return "launcher=serial"
    for name in LAUNCHERS:
        if "cells_per_gpu" in options_of_launcher(name):
            return f"launcher={name} launcher.cells_per_gpu={at_once}"
    return f"launcher=auto launcher.workers={at_once}"


def _epochs(options: Options) -> int:
    return 2 if options.tiny else 3


def _hourly(options: Options, at_once: int) -> Mapping[str, Value]:
    study = f"gpu-hourly-{at_once}"
    overrides = [
        "sweep.factors={}", "sweep.variants={sa: {attention: sa, attention.groups: 4}}", "sweep.baseline=sa",
        f"study={study}", f"replicates={at_once}", f"train.epochs={_epochs(options)}", "measure=off", "threads=1",
        *LEAN,
    ]  # fmt: skip
    overrides += [*TINY_DATA, "model=resnet8"] if options.tiny else [*LARGE, *_sharing(at_once).split()]
    started = time.monotonic()
    _finished("ablations.run", [*_shared(options), *overrides], options)
    seconds = time.monotonic() - started
    done = [_result(cell) for cell in _cells(options, study) if cell.state is CellState.FINISHED]
    if len(done) < at_once:
        raise NotMeasuredError(f"{len(done)} of {at_once} cells have a result")
    ends = [[epoch["finished"] for epoch in result["epochs"]] for result in done]
    paces = [(end[-1] - end[0]) / (len(end) - 1) for end in ends]  # includes testing after each epoch
    pace = statistics.fmean(paces)
    rest = max(0.0, seconds - _epochs(options) * pace)
    rate = at_once * 3600 / (EPOCHS * pace + rest)
    return {HOURLY: Value(rate, at_once), EPOCH: Value(pace, len(paces)), SECONDS: Value(seconds, 1)}


def _bench(options: Options) -> Mapping[str, Value]:
    small = (
        "bench.module_batch=2", "bench.network_batch=2", "sweep.factors.attention=[sa]",
        "bench.of=[networks]", "bench.also=[]",
    )  # fmt: skip
    overrides = [
        "model=resnet8",
        "sweep=rivals",
        "bench=quick",
        "tracking.enabled=false",
        f"bench.seconds={0 if options.tiny else 1}",
    ]
    started = time.monotonic()
    _finished("ablations.bench", [*_shared(options), *overrides, *(small if options.tiny else ())], options)
    found = {SECONDS: Value(time.monotonic() - started, 1)}
    for path in (options.out / "results").glob("bench-*/measurements.csv"):
        rows = pd.read_csv(path).query("kind == 'network' and name == 'sa' and mode == 'training step'")
        joules = rows["joules"].dropna()
        if len(joules):
            found[JOULES] = Value(float(joules.iloc[0]), 1)
    return found


def _cifar(options: Options) -> Mapping[str, Value]:
    if not (options.data / "cifar-10-batches-py").is_dir():
        raise NotMeasuredError(f"no cifar-10-batches-py in {options.data.name}")
    overrides = (
        "sweep=groups", "data=cifar10", f"data.root={options.data}", "train=cifar", "model=resnet20", "replicates=2",
        "measure=off", "study=gpu-cifar", *_sharing(TRAINED_AT_ONCE[1]).split(),
    )  # fmt: skip
    return _study(options, overrides, "gpu-cifar")


def _mlflow(options: Options) -> Mapping[str, Value]:
    database = options.out / "results" / "mlflow.db"
    if not database.exists():
        raise NotMeasuredError("there is no database of MLflow; run call 1 first")
    from mlflow import MlflowClient

    client = MlflowClient(sqlite_url(database))
    runs = [run for found in client.search_experiments() for run in client.search_runs([found.experiment_id])]
    metrics = [sum(name.startswith("system/gpu") for name in run.data.metrics) for run in runs]
    found = {RUNS: Value(len(runs), 1)}
    if torch.cuda.is_available():
        found[GPU_METRICS] = Value(max(metrics, default=0), len(runs))
    return found


def _shared(options: Options) -> list[str]:
    return [f"device={options.device}", f"results_dir={options.out / 'results'}"]


def _cells(options: Options, study: str) -> list[StoredCell]:
    database = options.out / "results" / "optuna.db"
    found = find_study(sqlite_url(database), study) if database.exists() else None
    return [] if found is None else list(found.cells())


def _result(cell: StoredCell) -> Mapping[str, Any]:
    assert cell.outcome is not None
    result: Mapping[str, Any] = cell.outcome["result"]
    return result


def _finished(module: str, arguments: Sequence[str], options: Options) -> None:
    """Runs a Python module to its end or the part's deadline, at which it is asked to stop and store its results.

    Raises:
        RuntimeError: if the module ends by itself with an error.
    """
    # In the process group of this process, which ends with the part.
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT)
    try:
        if code := process.wait(max(1.0, options.left - _GRACE) if math.isfinite(options.left) else None):
            raise RuntimeError(f"python -m {module} ended with exit status {code}")
    except subprocess.TimeoutExpired:
        print("    out of time: asked to stop", flush=True)
        process.send_signal(signal.SIGINT)
        process.wait(_GRACE)
    finally:
        process.kill()
        process.wait()
