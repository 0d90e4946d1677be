"""Replaces `Figure.savefig` as soon as matplotlib is imported; Python imports it at startup, see `tests.undrawn`."""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Finder(MetaPathFinder):
    is_asked = False

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name != "matplotlib.figure" or self.is_asked:
            return None
        self.is_asked = True  # the other finders are asked next
        spec = importlib.util.find_spec(name)
        self.is_asked = False
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
