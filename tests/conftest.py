"""What tests share: the smallest real study, and a command line run as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from hypothesis import settings

from tests import processors
from tests.servers import Cluster, MlflowServer, mlflow_server, postgres

# The same examples every time: a test that passed does not fail elsewhere by chance. New ones are looked for by
# `pytest --hypothesis-profile=explore`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]

# The smallest study that still has a baseline, a contrast, replicates and epochs; in one process, as starting workers
# takes longer than training it.
TINY = (
    "sweep.factors.attention.groups=[1,4]",
    "sweep.margin=1",
    "replicates=2",
    "train.epochs=2",
    "train.batch_size=8",
    "data.train_images=24",
    "data.test_images=20",
    "measure=off",
    "launcher=serial",
    "tracking.models=false",
)

# What measures costs as quickly as can be, after `TINY`, which leaves it out.
MEASURED = ("measure=on", "measure.seconds=0.1")

# Weights that grow some 10^8 times in each step leave the range of floats in the sixth, on any processor.
DIVERGING = ("train.learning_rate=1000", "train.weight_decay=10", "train.schedule=cosine", "train.batch_size=2")

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--as-processor", choices=list(processors.PROCESSORS), help="compute as a processor of this kind")


def pytest_configure(config: pytest.Config) -> None:
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"):  # tests log nothing to a server of the person's
        os.environ.pop(f"MLFLOW_TRACKING_{name}", None)
    for name in ("EXPERIMENT_NAME", "REGISTRY_URI"):
        os.environ.pop(f"MLFLOW_{name}", None)
    processors.put_on_path(ROOT)  # processes that tests start may be in any folder
    if processor := config.getoption("as_processor"):
        processors.imitate(processor)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device; none here"))


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Overrides of the smallest real study, in a folder of its own."""
    return [*TINY, f"results_dir={tmp_path / 'results'}"]


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a run; each that MLflow makes takes seconds, a copy of this one does not."""
    from mlflow import MlflowClient  # late, like matplotlib: most tests do without

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and a few black pixels are written instead of them: for tests that look at none."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save(_: Figure, file: Path | BinaryIO, format: str | None = None, **options: object) -> None:
        del options
        Image.new("RGB", (8, 8)).save(file, format)

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs `python -m ablations.<verb>` in a process of its own."""

    def run(verb: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", f"ablations.{verb}", *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            cwd=cwd,
            env=os.environ | {"COLUMNS": "132"},
        )

    return run


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server, which runs when a test begins."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def server() -> Iterator[MlflowServer]:
    """An MLflow server, which runs when a test begins."""
    with mlflow_server() as running:
        yield running
