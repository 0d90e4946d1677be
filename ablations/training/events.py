"""What is said of a cell: plain data that can be sent anywhere.

Probe                              before it is trained
Note, Step, Epoch, Saved   as they happen
Learnt, Predicted          when it is trained
Finished or Failed                 at last
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Why a cell has no result.
ERROR, OUT_OF_MEMORY, DIVERGED, TIME_LIMIT, LOST = "error", "out of memory", "diverged", "time limit", "lost"


@dataclass(frozen=True)
class Probe:
    """What a cell of a network takes: seconds (typical, and their range), memory of a training step, parameters.

    The memory is without the data set; nan is what is not known.
    """

    seconds: float
    low: float
    high: float
    peak_memory_mib: float
    parameters: int


@dataclass(frozen=True)
class Step:
    """A training step was taken: so many of so many."""

    done: int
    total: int


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

    `top1` is in percent, `learning_rate` is that of the epoch's first step, `seconds` are those of training alone,
    `finished` is Unix time, and `test_images` is how many test images loss and top-1 are of. Those are None after an
    epoch that ended without a test.
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
    """Something that people are told."""

    text: str


@dataclass(frozen=True)
class Saved:
    """A checkpoint, as a file has it."""

    content: bytes


@dataclass(frozen=True)
class Learnt:
    """Trained weights, as a file has them."""

    content: bytes


@dataclass(frozen=True)
class Predicted:
    """The trained network's predictions on the test images, as a file has them."""

    content: bytes


@dataclass(frozen=True)
class Finished:
    """A result as plain numbers, the machine that it comes from, and the fingerprint of the images that it saw."""

    result: dict[str, Any]
    environment: dict[str, str]
    images: str = ""


@dataclass(frozen=True)
class Failed:
    """Why there is no result: one of the kinds above, and the reason, whose last line says it.

    `ends_process` is whether the process that trained the cell can train no other one.
    """

    kind: str
    reason: str
    ends_process: bool = False


Progress = Step | Epoch | Note | Saved | Learnt | Predicted | Finished | Failed
