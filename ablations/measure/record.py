"""What a benchmark writes down: one row a measurement, and one a timing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

_UNKNOWN = math.nan


@dataclass(frozen=True)
class Subject:
    """What was measured.

    Args:
        kind: `module`, or `network`.
        name: of the attention module, as `sa`; `none` is the plain network, `copy` a module that copies its input.
        place: the stage that a module's shape is that of, as `layer3`; of a network, the backbone's name.
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
    """Under which circumstances it was measured.

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
    """What a module or network takes that no clock is needed for; NaN where it was not measured.

    Args:
        parameters, buffers: how many numbers.
        multiply_adds: of one image, as papers count them (`ablations.measure.complexity`).
        uncounted: operations on single elements of one image that papers do not count.
        moved_mib: what its operations read and write one by one, for the batch, forward.
        least_mib: what had to be read and written if all were one operation: input, output and parameters.
        saved_mib: what autograd keeps for backward, for the batch.
        peak_mib: the most that is allocated at a time in the mode that was measured, parameters included.
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
    """Time relative to the baseline; NaN where it could not be measured.

    Attributes:
        copies: how often every subject was built and timed anew.
        ms: median time in milliseconds.
        ratio, ratio_low, ratio_high: time relative to the baseline's, the geometric mean over copies, and its 95 % CI.
        noise_low, noise_high: the same CI of a second copy of the baseline: the noise floor.
        verdict: `baseline`, `slower`, `faster`, `same` (within the margin) or `undecided`; empty where none was asked.
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
    """A row of a benchmark: what, how, and what came of it.

    `status` is `measured`, `out of memory`, or why it failed; `joules` are those of an image, where the device counts
    them.
    """

    subject: Subject
    setting: Setting
    status: str
    timing: Timing = field(default_factory=Timing)
    costs: Costs = field(default_factory=Costs)
    joules: float = _UNKNOWN

    def to_row(self) -> dict[str, object]:
        """Returns it flat, a column a field."""
        measured = vars(self.subject) | vars(self.setting) | {"status": self.status}
        return measured | vars(self.timing) | vars(self.costs) | {"joules": self.joules}
