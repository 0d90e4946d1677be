"""Runs the tasks of a part of a call; a failed task affects only its own rows. `tests.gpu.part` is the entry point."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch

from ablations.common import machine
from ablations.common.wording import first_line
from ablations.measure.capture import captured
from ablations.measure.speed import Make, Samples, clock_of, compare
from tests.gpu.results import ROWS, Row, Value, append

NEEDS_GPU = "not measured: needs a GPU"
_REASON = 200  # maximum length of an error message


@dataclass(frozen=True)
class Options:
    """Options of a call.

    Args:
        device: `cuda`, or `cpu` to test the script.
        tiny: whether to use minimal sizes, to test the script.
        out: folder of results, to which later calls add.
        data: folder of CIFAR-10; it need not exist.
        until: deadline of the part, in seconds of `time.monotonic`.
    """

    device: str
    tiny: bool
    out: Path
    data: Path
    until: float = field(default=float("inf"), compare=False)

    @property
    def torch_device(self) -> torch.device:
        """The device as a `torch.device`."""
        return torch.device(self.device)

    @property
    def left(self) -> float:
        """Seconds until the deadline of the part."""
        return self.until - time.monotonic()


class NotMeasuredError(Exception):
    """A task cannot be measured on this machine; the message is the reason."""


@dataclass(frozen=True)
class Task:
    """Quantities that are measured together.

    Args:
        subject, baseline, protocol: as for `Row`.
        quantities: names with units.
        measure: returns the values by quantity; quantities that cannot be measured are missing.
    """

    subject: str
    baseline: str
    quantities: tuple[str, ...]
    protocol: str
    measure: Callable[[], Mapping[str, Value]]

    def rows(self, call: int, part: str, found: Mapping[str, Value], reason: str) -> Iterator[Row]:
        """Yields one row per quantity; quantities that are not in `found` have the reason instead of a value."""
        device, versions = described()
        for name in self.quantities:
            value, low, high, n, why = None, None, None, 0, reason
            if name in found:
                (value, n, low, high), why = found[name], ""
            about = (self.subject, self.baseline, name)
            yield Row(call, part, *about, value, low, high, n, self.protocol, why, device, versions)


Tasks = Callable[[Options], Sequence[Task]]


def described() -> tuple[str, str]:
    """Returns the device and the software versions."""
    found = machine.environment()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else found["cpu"]
    versions = [f"{name} {found[name]}" for name in ("python", "torch")]
    with suppress(metadata.PackageNotFoundError):
        versions.append(f"triton {metadata.version('triton')}")
    if commit := found.get("commit", ""):
        versions.append(f"commit {commit[:10]}")
    return device, ", ".join(versions)


def do(call: int, part: str, tasks: Sequence[Task], options: Options) -> int:
    """Runs tasks in sequence, and stores the rows of each immediately; returns the number of failed tasks."""
    failed = 0
    for task in tasks:
        print(f"{task.subject} / {task.baseline or '-'}: {', '.join(task.quantities)}", flush=True)
        found: Mapping[str, Value] = {}
        reason = NEEDS_GPU
        try:
            found = task.measure()
        except NotMeasuredError as error:
            reason = f"not measured: {error}"
        except Exception as error:  # any error: other tasks do not depend on it
            failed += 1
            reason = f"failed: {type(error).__name__}: {first_line(error)[:_REASON]}"
            print(f"FAILED {reason}", flush=True)
        append(options.out / ROWS, task.rows(call, part, found, reason))
        for name, value in found.items():
            print(f"    {name}: {value.value:.4g} (n = {value.n})", flush=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return failed


def on_gpu(make: Make) -> Make:
    """Returns a function that builds the same call as a CUDA graph."""
    return lambda: captured(make())


def compared(makes: Mapping[str, Make], baseline: str, options: Options, *, seconds: float, copies: int = 6) -> Samples:
    """Times copies of subjects in interleaved order (`ablations.measure.speed`)."""
    few = {"least_copies": 1, "most_copies": 1} if options.tiny else {"least_copies": copies}
    return compare(makes, baseline, clock_of(options.torch_device), seconds=0 if options.tiny else seconds, **few)


def ratio(samples: Samples, name: str, scale: float = 1.0, *, inverse: bool = False) -> Value:
    """Returns a subject's time relative to the baseline's, or the inverse of it, times `scale`."""
    middle, *interval = samples.ratio(name)
    bounds = [] if any(map(math.isnan, interval)) else interval  # NaN for a single copy
    if inverse:
        middle, bounds = 1 / middle, [1 / bound for bound in reversed(bounds)]
    return Value(middle * scale, samples.copies, *(bound * scale for bound in bounds))


def alone(make: Make, options: Options, seconds: float) -> Value:
    """Returns the milliseconds per call, the median over rebuilt copies."""
    samples = compared({"it": make}, "it", options, seconds=seconds)
    return Value(samples.timing("it").ms, samples.copies)
