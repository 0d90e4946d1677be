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

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(folders) and not code.co_name.startswith("<"):
            place = Path(code.co_filename).relative_to(ROOT).with_suffix("")
            found.setdefault(f"{'.'.join(place.parts)}.{code.co_qualname}", code)

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return found


@contextmanager
def failing_once(code: CodeType) -> Iterator[list[str]]:
    """Makes the first call of a function raise PlantedError, and appends its name to the list."""
    failed: list[str] = []

    def fail(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is code:
            failed.append(code.co_qualname)
            raise PlantedError(f"planted in {code.co_qualname}")  # an error in a profile function also removes it

    sys.setprofile(fail)
    try:
        yield failed
    finally:
        sys.setprofile(None)
