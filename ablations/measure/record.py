"""The records of a benchmark: one row per measurement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_UNKNOWN = math.nan


@dataclass(frozen=True)
class Subject:
    """The subject of a measurement.

    Args:
        kind: `module` or `network`.
        name: name of the attention module, such as `sa`; `none` is the plain network, `copy` a module that copies its
            input.
        place: for a module, the stage from which its shape is taken, such as `layer3`; for a network, the backbone.
        batch, channels, height, width: shape of the input.
    """

    kind: str
    name: str
    place: str
    batch: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement.

    Args:
        mode: `forward` (without gradients), `forward+backward`, or `training step` (with loss and optimizer).
        compile: `eager`, `captured` (as a CUDA graph), or `compiled`.
        precision: `fp32`, or `bf16` (autocast in networks, bf16 tensors in modules).
        layout: `contiguous` (NCHW), or `channels_last` (NHWC).
    """

    mode: str
    compile: str
    precision: str
    layout: str


@dataclass(frozen=True)
class Costs:
    """Costs of a module or network other than time; NaN if not measured.

    Args:
        parameters, buffers: number of elements.
        multiply_adds: per image, as counted in papers (`ablations.measure.complexity`).
        uncounted: elementwise operations per image that papers do not count.
        moved_mib: memory traffic of a forward pass of the batch, without fusion.
        least_mib: memory traffic if all operations were fused into one: input, output and parameters.
        saved_mib: activations that autograd saves for backward, for the batch.
        peak_mib: peak memory in the measured mode, including parameters.
    """

    parameters: float = _UNKNOWN
    buffers: float = _UNKNOWN
    multiply_adds: float = _UNKNOWN
    uncounted: float = _UNKNOWN
    moved_mib: float = _UNKNOWN
    least_mib: float = _UNKNOWN
    saved_mib: float = _UNKNOWN
    peak_mib: float = _UNKNOWN


@dataclass(frozen=True)
class Timing:
    """Time relative to the baseline; NaN if it could not be measured.

    Attributes:
        copies: number of times that every subject was rebuilt and timed.
        ms: median time in milliseconds.
        ratio, ratio_low, ratio_high: time relative to the baseline's, the geometric mean over copies, and its 95 % CI.
        noise_low, noise_high: the same CI of a second copy of the baseline: the noise floor.
        verdict: `baseline`, `slower`, `faster`, `same` (within the margin) or `undecided`; empty if not requested.
    """

    copies: int = 0
    ms: float = _UNKNOWN
    ratio: float = _UNKNOWN
    ratio_low: float = _UNKNOWN
    ratio_high: float = _UNKNOWN
    noise_low: float = _UNKNOWN
    noise_high: float = _UNKNOWN
    verdict: str = ""


@dataclass(frozen=True)
class Measurement:
    """A row of a benchmark: subject, setting and results.

    `status` is `measured`, `out of memory`, or the reason of a failure; `joules` is the energy per image, if the device
    has an energy counter.
    """

    subject: Subject
    setting: Setting
    status: str
    timing: Timing = field(default_factory=Timing)
    costs: Costs = field(default_factory=Costs)
    joules: float = _UNKNOWN

    def to_row(self) -> dict[str, object]:
        """Returns a flat row with one column per field."""
        measured = vars(self.subject) | vars(self.setting) | {"status": self.status}
        return measured | vars(self.timing) | vars(self.costs) | {"joules": self.joules}
