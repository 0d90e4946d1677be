"""Shortcuts around what every small study pays, for tests that are not about it: figures and MLflow's tables.

Drawing takes a third of a small study's time, creating MLflow's tables most of a second. While the environment
variable `UNDRAWN` is set, figures are left undrawn; while `TABLES` is set, to the path of an empty MLflow database, new
stores are copies of it. Both apply to processes that tests start: a folder on PYTHONPATH has a `sitecustomize` that
calls `take`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
UNDRAWN = "ABLATIONS_TESTS_UNDRAWN"
TABLES = "ABLATIONS_TESTS_TABLES"


def take() -> None:
    """Takes the shortcuts in modules that are imported from now on."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Changes modules as soon as they are imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, *_: object) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in _CHANGES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _CHANGES[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


class _Blank:
    """A `Sketch.draw` that draws nothing."""

    def __get__(self, sketch: Any, _: object) -> Any:
        if sketch is None:
            return self
        if UNDRAWN not in os.environ:
            return vars(sketch)["draw"]
        from matplotlib.figure import Figure

        return lambda _: Figure()

    def __set__(self, sketch: Any, draw: Callable[[str], Any]) -> None:
        vars(sketch)["draw"] = draw


def _draw_nothing(module: ModuleType) -> None:
    module.Sketch.draw = _Blank()


def _save_pixels(module: ModuleType) -> None:
    """Makes matplotlib's `Figure.savefig` write a few black pixels."""
    save = module.Figure.savefig

    def savefig(figure: Any, file: Any, format: str | None = None, **options: Any) -> None:
        if UNDRAWN not in os.environ:
            save(figure, file, format=format, **options)
            return
        from PIL import Image

        undated: dict[str, Any] = {"creationDate": None, "modDate": None} if format == "pdf" else {}
        Image.new("RGB", (8, 8)).save(file, format, **undated)  # equal figures are equal files

    module.Figure.savefig = savefig


def _copy_tables(module: ModuleType) -> None:
    """Makes the suite copy an empty MLflow database; the first process that needs it creates it."""
    create = module._make_store

    def make_store(destination: Any, path: Path) -> None:
        tables = Path(os.environ.get(TABLES, os.devnull))
        if tables.is_file() and not path.exists():
            with suppress(OSError):  # which `create` meets, too
                _copy(tables, path)
        create(destination, path)  # unless it exists
        if TABLES in os.environ and not tables.exists():
            _copy(path, tables)

    module._make_store = make_store


def _copy(file: Path, to: Path) -> None:
    """Copies a file atomically, as several processes may do it at once."""
    part = to.with_name(f"{to.name}.{os.getpid()}")
    try:
        shutil.copyfile(file, part)
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)


_CHANGES = {
    "ablations.reporting.figures.sketch": _draw_nothing,
    "ablations.tracking.experiment": _copy_tables,
    "matplotlib.figure": _save_pixels,
}
