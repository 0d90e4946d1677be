"""Failures injected into functions that are found by running an action."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.conftest import ROOT


class PlantedError(Exception):
    """The error of an injected failure."""


def functions_called(act: Callable[[], object], packages: Sequence[str]) -> dict[str, CodeType]:
    """Returns the functions of packages (such as `ablations/reporting`) that an action calls, by module and name."""
    folders = tuple(str(ROOT / package) for package in packages)
    found: dict[str, CodeType] = {}

    def note(frame: FrameType, *_: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(folders) and not code.co_name.startswith("<"):
            place = Path(code.co_filename).relative_to(ROOT).with_suffix("")
            found.setdefault(f"{'.'.join(place.parts)}.{code.co_qualname}", code)

    # Unlike a profile function, a trace function that returns None is not called for C functions and returns.
    sys.settrace(note)
    try:
        act()
    finally:
        sys.settrace(None)
    return found


@contextmanager
def failing_once(code: CodeType) -> Iterator[list[str]]:
    """Makes the first call of a function raise PlantedError, and appends its name to the list."""
    failed: list[str] = []

    def fail(frame: FrameType, *_: Any) -> None:
        if frame.f_code is code:
            failed.append(code.co_qualname)
            raise PlantedError(f"planted in {code.co_qualname}")  # an error in a trace function also removes it

    sys.settrace(fail)
    try:
        yield failed
    finally:
        sys.settrace(None)
