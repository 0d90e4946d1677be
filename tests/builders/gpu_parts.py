"""Tasks of calls on a GPU that fail in their ways."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from tests.gpu.measuring import NotMeasuredError, Options, Task
from tests.gpu.results import Value


def broken(_: Options) -> Sequence[Task]:
    """Tasks of which one fails, one cannot be done, and one is done in part."""

    def fails() -> Mapping[str, Value]:
        raise ValueError("no such kernel")

    def refuses() -> Mapping[str, Value]:
        raise NotMeasuredError("no data")

    return [
        Task("first", "", ("size",), "", fails),
        Task("second", "", ("size",), "", refuses),
        Task("third", "", ("size", "weight"), "", lambda: {"size": Value(3.0, 2)}),
    ]


def dying(_: Options) -> Sequence[Task]:
    """A task that is done, and one that ends the process."""

    def dies() -> Mapping[str, Value]:
        os._exit(3)

    return [
        Task("quick", "", ("size",), "", lambda: {"size": Value(1.0, 1)}),
        Task("dying", "", ("size",), "", dies),
    ]
