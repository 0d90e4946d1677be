"""Events about a cell, as plain data that can be sent to another process or machine.

Probe                      before training
Note, Step, Epoch, Saved   during training
Learnt, Predicted          after training
Finished or Failed         last event
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Reasons why a cell has no result.
ERROR, OUT_OF_MEMORY, DIVERGED, TIME_LIMIT, LOST = "error", "out of memory", "diverged", "time limit", "lost"


@dataclass(frozen=True)
class Probe:
    """Estimated cost of a cell: seconds (median, and a range), peak memory of a training step, parameters.

    The memory excludes the data set; unknown values are NaN.
    """

    seconds: float
    low: float
    high: float
    peak_memory_mib: float
    parameters: int


@dataclass(frozen=True)
class Step:
    """Number of completed training steps, and of all steps of the cell."""

    done: int
    total: int


@dataclass(frozen=True)
class Epoch:
    """Results of an epoch.

    `top1` is in percent, `learning_rate` is that of the epoch's first step, `seconds` excludes testing, `finished` is
    Unix time, and `test_images` is the number of images behind `test_loss` and `top1`. Both are None if the epoch ended
    without a test.
    """

    epoch: int
    train_loss: float
    test_loss: float | None
    top1: float | None
    learning_rate: float
    seconds: float
    finished: float
    test_images: int = 0


@dataclass(frozen=True)
class Note:
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint, as the content of its file."""

    content: bytes


@dataclass(frozen=True)
class Learnt:
    """Trained weights, as the content of their file."""

    content: bytes


@dataclass(frozen=True)
class Predicted:
    """The trained network's predictions on the test images, as the content of their file."""

    content: bytes


@dataclass(frozen=True)
class Finished:
    """A result as plain values, a description of the machine, and the fingerprint of the data set."""

    result: dict[str, Any]
    environment: dict[str, str]
    images: str = ""


@dataclass(frozen=True)
class Failed:
    """A failure: its kind, one of those above, and the reason, whose last line summarizes it.

    `ends_process` is whether the process cannot train further cells.
    """

    kind: str
    reason: str
    ends_process: bool = False


Progress = Step | Epoch | Note | Saved | Learnt | Predicted | Finished | Failed
