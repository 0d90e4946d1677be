"""Functions for `Launcher.alone`, at module level so that worker processes can import them."""

from __future__ import annotations

import os
import signal


def threads_and_process(extra: int) -> tuple[int, int]:
    """Returns torch's number of threads plus `extra`, and the process id."""
    import torch

    return torch.get_num_threads() + extra, os.getpid()


def fail(text: str) -> None:
    """Raises an error with this text."""
    raise KeyError(text)


def visible_gpus(*_: object) -> str | None:
    """Returns which GPUs this process is told to use, whatever it is asked."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def die() -> None:
    """Kills this process."""
    os.kill(os.getpid(), signal.SIGKILL)


class UnpicklableError(Exception):
    """An error that cannot be unpickled, as its constructor needs an argument that pickle does not store."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(name)
        self.number = number


def raise_unpicklable() -> None:
    """Raises an error that cannot be sent between processes."""
    raise UnpicklableError("planted", 3)
