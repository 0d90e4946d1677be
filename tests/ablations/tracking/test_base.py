"""The mirror of a study: MLflow or none."""

from __future__ import annotations

import inspect
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ablations.common.errors import UsageError
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.tracking import StudyMirror, open_tracker
from ablations.tracking.tracker import Tracker
from ablations.training.events import Epoch
from tests.wording import worded

EPOCH = Epoch(0, 2.0, 2.1, 40.0, 0.1, 1.0, 1_700_000_000.25)
METHODS = [
    name for name, member in vars(StudyMirror).items() if inspect.isfunction(member) and not name.startswith("_")
]


def test_without_tracking_the_mirror_does_nothing(tmp_path: Path) -> None:
    config = compose_config(["tracking.enabled=false", f"results_dir={tmp_path}"])
    design = make_design(config)
    cell = next(design.cells())
    mirror = open_tracker(config, design, "mine", Console(quiet=True))
    assert type(mirror) is StudyMirror
    mirror.sync([(cell, {})], "fingerprint0")
    mirror.begin("fingerprint0", commit=None)
    mirror.start_cell(cell, "abc123")
    mirror.epoch(cell, EPOCH)
    mirror.finish_cell(cell, {})
    mirror.fail_cell(cell, "no memory")
    mirror.release_cell(cell)
    mirror.end("FINISHED", tmp_path, note="# hello")
    assert (mirror.complete, mirror.lost, mirror.sent, mirror.command()) == (True, None, 0, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_tracker_overrides_every_method_of_a_mirror(name: str) -> None:
    assert name in vars(Tracker)
    assert inspect.signature(getattr(Tracker, name)) == inspect.signature(getattr(StudyMirror, name))


def test_a_mirror_has_every_method_that_a_driver_calls() -> None:
    assert sorted(METHODS) == [
        "begin", "command", "costs", "end", "epoch", "fail_cell", "finish_cell", "release_cell", "start_cell", "sync",
        "update_costs",
    ]  # fmt: skip


def test_a_store_is_announced_only_when_it_is_created(tmp_path: Path) -> None:
    config = compose_config([f"results_dir={tmp_path}", "device=cpu"])
    design = make_design(config)
    said = StringIO()
    for _ in range(2):
        mirror = open_tracker(config, design, "mine", Console(file=said, width=80))
        assert isinstance(mirror, Tracker)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logging = worded("tracking.logging", uri=uri, experiment=design.study)
    assert said.getvalue().splitlines() == [worded("tracking.making"), logging, logging]
    experiment = mirror.experiment.client.get_experiment(mirror.experiment.id)
    assert experiment.artifact_location == (tmp_path / "mlflow-artifacts" / design.study).as_uri()


def test_an_unreachable_store_is_refused(tmp_path: Path) -> None:
    config = compose_config([f"results_dir={tmp_path}", "tracking.uri=http://127.0.0.1:9"])
    with pytest.raises(UsageError, match="MLflow does not respond"):
        open_tracker(config, make_design(config), "mine", Console(quiet=True))


def test_mlflow_is_not_imported_with_tracking_off() -> None:
    script = (
        "import sys\n"
        "from rich.console import Console\n"
        "from ablations.config.compose import compose_config\n"
        "from ablations.design import make_design\n"
        "from ablations.tracking import open_tracker\n"
        "config = compose_config(['tracking.enabled=false', 'device=cpu'])\n"
        "open_tracker(config, make_design(config), 'mine', Console(quiet=True))\n"
        "sys.exit('mlflow' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
