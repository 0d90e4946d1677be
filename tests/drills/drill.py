"""Kills a study's driver, workers and MLflow server at random moments, and checks the results.

    python -m tests.drills.drill --kills 50
    python -m tests.drills.drill --kills 50 --launcher ray

All parts are real processes on the loopback interface that are killed by SIGKILL: `mlflow server`, and `python -m
ablations.run`, which is restarted after each kill. With launcher=auto the fork server of the workers is killed, too,
and no process may survive a driver that was killed alone. With launcher=ray there is a Ray cluster of a head without
CPUs and two nodes with one CPU each, which are killed, too.

Studies are run one after the other until the given number of kills is reached. The results of each must equal those of
an undisturbed study, and every cell must be in both stores exactly once (in MLflow after `analyze ... sync=true`, as
its server may have been down when the study ended).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from tests.builders.launched import fork_servers, forked, is_running, ray_workers

ROOT = Path(__file__).parents[2]
# Cells of about a second: long enough to be killed.
STUDY = (
    "device=cpu", "sweep.factors.attention.groups=[1,4]", "replicates=4", "train.epochs=12", "train.batch_size=8",
    "data.train_images=96", "data.test_images=40", "checkpoint_every=0", "weights=off", "retries=1000",
    "measure=off",
)  # fmt: skip
HEAD, NODES = "127.0.0.2", ("127.0.0.3", "127.0.0.4")  # Ray would replace 127.0.0.1 by another address of the machine
CLOCK = {"seconds", "finished"}
_PATIENCE = 120.0  # seconds that a part may take to start, or a driver to end
_ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class DrillError(Exception):
    """A condition of the drill is violated."""


@dataclass
class Part:
    """A process of the drill and its descendants, which can be killed and restarted."""

    name: str
    command: Sequence[str]
    log: Path
    is_up: Callable[[], bool] = lambda: True
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Starts the process and waits until it is up."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=_ENVIRONMENT, cwd=ROOT, start_new_session=True
            )
        wait_for(self.is_up, f"{self.name} to start")

    def kill(self) -> None:
        """Kills the process and its descendants by SIGKILL."""
        if self.process is None:
            return
        try:
            family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        except psutil.NoSuchProcess:
            family = []
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()


@dataclass
class Drill:
    """The processes of a drill.

    Args:
        folder: folder of stores and logs.
        launcher: auto or ray.
        seed: seed of the times and targets of kills.
        say: prints a line.
    """

    folder: Path
    launcher: str = "auto"
    seed: int = 0
    say: Callable[[str], None] = print
    struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        mlflow_port = free_port()
        self.uri = f"http://127.0.0.1:{mlflow_port}"
        python, logs = sys.executable, self.folder / "logs"
        logs.mkdir(parents=True)
        self.driver = Part("driver", [], logs / "driver.log")
        store = f"sqlite:///{self.folder / 'mlflow.db'}"
        mlflow = [python, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={mlflow_port}", "--workers=1"]
        mlflow += [f"--backend-store-uri={store}", f"--artifacts-destination={self.folder / 'artifacts'}"]
        self.mlflow = Part("MLflow server", mlflow, logs / "mlflow.log", lambda: listens("127.0.0.1", mlflow_port))
        self.cluster, self.nodes, self._options = [], [], [f"launcher={self.launcher}"]
        if self.launcher == "ray":
            self._make_cluster(python, logs)

    def _make_cluster(self, python: str, logs: Path) -> None:
        ray_port = free_port()
        address = f"{HEAD}:{ray_port}"
        ray = [str(Path(python).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        head = [*ray, "--head", f"--port={ray_port}", f"--node-ip-address={HEAD}", "--num-cpus=0"]
        head += ["--include-dashboard=false", f"--temp-dir={self._ray_folder()}", "--object-store-memory=100000000"]
        self.nodes = [
            Part(
                f"node {node}",
                [*ray, f"--address={address}", f"--node-ip-address={node}", "--num-cpus=1",
                 "--object-store-memory=100000000"],
                logs / f"{node}.log",
            )
            for node in NODES
        ]  # fmt: skip
        self.cluster = [Part("head", head, logs / "head.log", lambda: listens(HEAD, ray_port)), *self.nodes]
        self._options.append(f"launcher.address={address}")

    def _ray_folder(self) -> Path:
        """Returns a folder with a short path: it contains sockets, whose paths are limited to 107 characters."""
        self._short = Path(tempfile.mkdtemp(prefix="r"))
        return self._short

    def __enter__(self) -> Drill:
        for part in (*self.cluster, self.mlflow):
            part.begin()
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self.driver, *reversed(self.cluster), self.mlflow):
            part.kill()
        if self.cluster:
            shutil.rmtree(self._short, ignore_errors=True)

    def options(self, study: str) -> list[str]:
        """Returns the options of a study with kills."""
        return [
            *STUDY, f"study={study}", f"results_dir={self.folder}", f"tracking.uri={self.uri}", *self._options,
        ]  # fmt: skip

    def run(self, study: str, kills: list[str]) -> None:
        """Runs a study to its end and performs kills meanwhile; removes those from `kills`, a list of target kinds.

        Raises:
            DrillError: if the study does not end in time.
        """
        self.driver.command = [sys.executable, "-m", "ablations.run", *self.options(study)]
        self.driver.begin()
        begun = time.monotonic()
        next_strike = begun + self.random.uniform(5, 12)
        while True:
            assert self.driver.process
            status = self.driver.process.poll()
            if status == 0:
                return
            if status is not None:
                self.say(f"  driver ended with status {status}; restarted")
                self.driver.begin()
            if kills and time.monotonic() > next_strike:
                if self.strike(kills[0]):
                    kills.pop(0)
                next_strike = time.monotonic() + self.random.uniform(0.3, 2.0)
            if time.monotonic() - begun > 10 * _PATIENCE:
                raise DrillError(f"{study} does not end in time")
            time.sleep(0.05)

    def sync(self, study: str) -> None:
        """Sends the missing content to the MLflow server, which may have been down when the study ended.

        Raises:
            DrillError: if that fails.
        """
        command = [sys.executable, "-m", "ablations.analyze", *self.options(study), "figures=[forest]", "sync=true"]
        done = subprocess.run(command, env=_ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DrillError(f"{study}: sync=true ended with status {done.returncode}: {done.stderr.strip()}")

    def strike(self, kind: str) -> bool:
        """Kills a process of this kind, and restarts nodes and servers; returns whether there was one to kill.

        Raises:
            DrillError: if workers survive their driver.
        """
        if kind == "driver":
            assert self.driver.process
            if self.driver.process.poll() is not None:
                return False
            self._kill_driver()
        elif kind in ("worker", "fork server"):
            victims = self._workers() if kind == "worker" else below(self.driver, fork_servers)
            if not victims:
                return False
            try:
                self.random.choice(victims).kill()
            except psutil.NoSuchProcess:
                return False  # it had ended
        else:
            part = self.random.choice(self.nodes) if kind == "node" else self.mlflow
            part.kill()
            time.sleep(self.random.uniform(0, 2))
            part.begin()
        self.struck[kind] += 1
        self.say(f"  kill {self.struck.total()}: {kind}")
        return True

    def _workers(self) -> list[psutil.Process]:
        if self.launcher == "auto":
            return below(self.driver, forked)
        return ray_workers(process for node in self.nodes for process in below(node))

    def _kill_driver(self) -> None:
        if self.launcher == "ray":
            self.driver.kill()
            return
        workers, process = below(self.driver), self.driver.process
        assert process
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(is_running, workers)), "the workers of a killed driver to end")


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Returns all descendants of a process."""
    return list(process.children(recursive=True))


def below(part: Part, found: Callable[[psutil.Process], list[psutil.Process]] = descendants) -> list[psutil.Process]:
    """Returns the descendants of a part's process, or those that `found` returns; none if the part has ended."""
    try:
        return found(psutil.Process(part.process.pid)) if part.process else []
    except psutil.NoSuchProcess:
        return []


def undisturbed(folder: Path) -> dict[str, Any]:
    """Runs the study with the serial launcher, and returns its results."""
    options = [*STUDY, "study=calm", f"results_dir={folder}", "tracking.enabled=false", "launcher=serial"]
    subprocess.run(
        [sys.executable, "-m", "ablations.run", *options], check=True, env=_ENVIRONMENT, cwd=ROOT, capture_output=True
    )
    return stored(folder, "calm")


def stored(folder: Path, study: str) -> dict[str, Any]:
    """Returns the result of every cell without times.

    Raises:
        DrillError: if a cell is stored twice or is not finished.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = optuna.load_study(study_name=study, storage=f"sqlite:///{folder / 'optuna.db'}").trials
    found: dict[str, Any] = {}
    for trial in trials:
        name = f"{trial.user_attrs['variant']} r{trial.user_attrs['replicate']}"
        # A killed attempt remains as a failed trial without a reason.
        if trial.state == optuna.trial.TrialState.FAIL and "failure" not in trial.user_attrs:
            continue
        if name in found or trial.state != optuna.trial.TrialState.COMPLETE:
            raise DrillError(f"{study}: {name} is in the store twice, or {trial.state.name}")
        found[name] = timeless(json.loads(trial.user_attrs["outcome"])["result"])
    return found


def check_mirror(uri: str, study: str, expected: dict[str, Any]) -> None:
    """Raises DrillError unless MLflow has the study, and every cell exactly once with all its epochs."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    names = Counter(run.info.run_name for run in runs)
    if names != Counter([study, *expected]):
        raise DrillError(f"{study}: MLflow has the runs {dict(names)}")
    for run in runs:
        if run.info.status != "FINISHED":
            raise DrillError(f"{study}: the run {run.info.run_name} is {run.info.status}")
        if run.info.run_name == study:
            continue
        history = client.get_metric_history(run.info.run_id, "top1")
        curve = sorted((metric.step, metric.value) for metric in history)
        epochs = expected[run.info.run_name]["epochs"]
        if curve != [(epoch["epoch"] + 1, epoch["top1"]) for epoch in epochs]:
            raise DrillError(f"{study}: MLflow has a wrong curve of {run.info.run_name}: {curve}")


def timeless(value: Any) -> Any:
    """Returns a result without times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in CLOCK}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def free_port() -> int:
    """Returns an unused port."""
    with socket.socket() as unused:
        unused.bind(("", 0))
        return int(unused.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Whether a server accepts connections at an address."""
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True


def wait_for(holds: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds; raises DrillError on a timeout."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > _PATIENCE:
            raise DrillError(f"timeout while waiting for {what}")
        time.sleep(0.1)


KINDS = {
    "auto": ("driver", "worker", "fork server", "MLflow server"),
    "ray": ("driver", "worker", "node", "MLflow server"),
}


def drill(folder: Path, launcher: str, kills: int, seed: int, say: Callable[[str], None]) -> Counter[str]:
    """Runs studies until the given number of kills is reached; returns the number of kills by kind.

    Raises:
        DrillError: if the results of a study differ from those of an undisturbed one.
    """
    begun = time.monotonic()
    expected = undisturbed(folder)
    say(f"undisturbed: {len(expected)} cells in {time.monotonic() - begun:.0f} s, serially")
    with Drill(folder, launcher, seed, say) as drilling:
        plan = list(islice(cycle(KINDS[launcher]), kills))
        drilling.random.shuffle(plan)
        number = 0
        while plan:
            study, begun = f"drill-{number}", time.monotonic()
            drilling.run(study, plan)
            drilling.sync(study)
            number += 1
            if stored(folder, study) != expected:
                raise DrillError(f"{study}: the results are not those of the undisturbed study")
            check_mirror(drilling.uri, study, expected)
            say(f"{study}: as undisturbed, every cell once in both stores ({time.monotonic() - begun:.0f} s)")
        return drilling.struck


def main() -> int:
    """Runs a drill and prints the kills; returns 0, or 1 if a condition was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--launcher", choices=list(KINDS), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept afterwards, with the logs")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="drill-"))
    folder.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        print(text, flush=True)

    try:
        struck = drill(folder.resolve(), arguments.launcher, arguments.kills, arguments.seed, say)
    except DrillError as error:
        say(f"FAILED: {error}; the logs are in {folder / 'logs'}")
        return 1
    say(f"{struck.total()} kills: " + ", ".join(f"{number} of a {kind}" for kind, number in sorted(struck.items())))
    if arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # runs __exit__, which kills all parts
    sys.exit(main())
