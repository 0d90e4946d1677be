"""Functions for `Launcher.alone`: at the top level of a module, as worker processes import them."""

from __future__ import annotations

import os
import signal


def threads_and_process(extra: int) -> tuple[int, int]:
    """Returns torch's threads plus `extra`, and the process."""
    import torch

    return torch.get_num_threads() + extra, os.getpid()


def fail(text: str) -> None:
    """Raises an error with this text."""
    raise KeyError(text)


def die() -> None:
    """Ends this process without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


class UnpicklableError(Exception):
    """An error that cannot be unpickled: it takes other arguments than it keeps."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(name)
        self.number = number


def raise_unpicklable() -> None:
    """Raises an error that cannot be sent as it is."""
    raise UnpicklableError("planted", 3)
