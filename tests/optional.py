"""Packages that few tests need: on a machine that lacks one, the files that import it are skipped, with the reason.

So the tests of kernels and training can be collected on a GPU's machine (`pytest -m cuda`) that has no tracking server
or cluster. Other packages that are missing remain errors: `pyproject.toml` lacks them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

OPTIONAL = frozenset({"mlflow", "nbclient", "nbformat", "onnx", "onnxruntime", "onnxscript", "pexpect", "psycopg2"})
OPTIONAL |= {"pytorch_grad_cam", "ray", "tensorboard", "wandb"}


class File(pytest.Module):
    """A file of tests, which is skipped where it cannot be imported for lack of an optional package."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Imports the file and returns what is in it."""
        try:
            return super().collect()
        except pytest.Collector.CollectError as error:
            cause = error.__cause__
            package = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
            if package not in OPTIONAL:
                raise
        pytest.skip(f"needs the Python package {package}, which is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> File:
    """Has pytest collect files of tests in this way."""
    file: File = File.from_parent(parent, path=module_path)  # type: ignore[no-untyped-call]
    return file


class _Without(MetaPathFinder):
    """What finds modules and distributions, without the optional packages."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds a module."""
        if name.partition(".")[0] in OPTIONAL:
            return None
        spec: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return spec

    def find_distributions(self, context: DistributionFinder.Context) -> Iterable[Distribution]:
        """Finds the metadata of packages."""
        if context.name in OPTIONAL or not hasattr(self._finder, "find_distributions"):
            return ()
        found: Iterable[Distribution] = self._finder.find_distributions(context)
        return found


def hide() -> None:
    """Makes this process one of a machine without the optional packages, none of which is imported yet."""
    sys.meta_path[:] = [_Without(finder) for finder in sys.meta_path]
