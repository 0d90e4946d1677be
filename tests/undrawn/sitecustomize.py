"""Replaces `Figure.savefig` as soon as matplotlib is imported; Python imports it at startup, see `tests.undrawn`."""

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, *_: object) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "matplotlib.figure" else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            from tests.undrawn import save_pixels

            execute(module)
            module.Figure.savefig = save_pixels

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if os.environ.get("ABLATIONS_TESTS_UNDRAWN"):
    sys.meta_path.insert(0, _Finder())
