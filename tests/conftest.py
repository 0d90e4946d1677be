"""Shared fixtures: the smallest real study, and a command line in a separate process."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import settings

from tests import processors, shortcuts
from tests.optional import pytest_pycollect_makemodule as pytest_pycollect_makemodule
from tests.servers import Cluster, MlflowServer, mlflow_server, postgres

# Deterministic examples, so that tests do not fail by chance elsewhere. `pytest --hypothesis-profile=explore` draws new
# ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]

# The smallest study with a baseline, a contrast, replicates and epochs; in one process, because starting workers takes
# longer than training.
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

# Measures costs as fast as possible, after `TINY`, which turns measuring off.
MEASURED = ("measure=on", "measure.seconds=0.1")

# Weights that grow some 10^8 times in each step leave the range of floats in the sixth, on any processor.
DIVERGING = ("train.learning_rate=1000", "train.weight_decay=10", "train.schedule=cosine", "train.batch_size=2")

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--as-processor", choices=list(processors.PROCESSORS), help="compute as a processor of this kind")


def pytest_configure(config: pytest.Config) -> None:
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"):  # tests do not log to a user's server
        os.environ.pop(f"MLFLOW_TRACKING_{name}", None)
    for name in ("EXPERIMENT_NAME", "REGISTRY_URI"):
        os.environ.pop(f"MLFLOW_{name}", None)
    processors.put_on_path(ROOT)  # for processes that tests start in any folder
    processors.put_on_path(shortcuts.FOLDER)
    if shortcuts.TABLES not in os.environ:  # the workers of pytest-xdist inherit it
        folder = TemporaryDirectory(prefix="ablations-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ |= {shortcuts.UNDRAWN: "1", shortcuts.TABLES: str(Path(folder.name) / "mlflow.db")}
    shortcuts.take()
    if processor := config.getoption("as_processor"):
        processors.imitate(processor)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests that need a GPU where there is none; where there is one, those that compile for minutes come last."""
    if torch.cuda.is_available():
        items.sort(key=_compiles)
        return
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; none here"))


def _compiles(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("cuda")
    return marker is not None and bool(marker.kwargs.get("compiles"))


@pytest.fixture(autouse=True, scope="module")
def _cheap_collections() -> None:
    """Exempts what is there from garbage collections: measuring collects often, and would scan all imported modules."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Overrides of the smallest real study, in a temporary folder."""
    return [*TINY, f"results_dir={tmp_path / 'results'}"]


@pytest.fixture
def _drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws figures, also in processes that the test starts; by default tests leave them undrawn."""
    monkeypatch.delenv(shortcuts.UNDRAWN)


@pytest.fixture
def _created(monkeypatch: pytest.MonkeyPatch) -> None:
    """Creates MLflow's tables; by default tests copy those of another test."""
    monkeypatch.delenv(shortcuts.TABLES)


@pytest.fixture(scope="session")
def command() -> Command:
    """Runs `python -m ablations.<verb>` in a separate process."""

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
    """A PostgreSQL server that is running at the start of a test."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def server() -> Iterator[MlflowServer]:
    """An MLflow server that is running at the start of a test."""
    with mlflow_server() as running:
        yield running
