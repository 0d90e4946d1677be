"""Declares the metrics of a cell for tables, figures and MLflow: name, label, unit, digits, direction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Metric:
    """A quantity of a cell, stored under `key` in its result.

    `direction` is `maximize` or `minimize`; it is empty for metrics that cannot be objectives of a search. `measured`
    marks a variant's cost (`ablations.analysis.costs`), `counted` a property of the network that training does not
    change; neither varies over replicates, so verdicts cannot be about them.
    """

    key: str
    label: str
    unit: str
    digits: int
    direction: str = ""
    measured: bool = False
    counted: bool = False

    @property
    def in_points(self) -> bool:
        """Whether differences are in percentage points."""
        return self.unit == "%"

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of correctly classified images."""
        return self.in_points and self.direction == "maximize"

    @property
    def difference_unit(self) -> str:
        """The unit of differences; empty if there is none."""
        return "points" if self.in_points else self.unit

    def quantity(self, value: float) -> str:
        """Formats an unsigned difference, such as a margin, with its unit: `1 point`, `0.2 points`."""
        unit = "point" if self.in_points and value == 1 else self.difference_unit
        return f"{value:g} {unit}".rstrip()

    @property
    def axis(self) -> str:
        """Axis label: name and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def format(self, value: float) -> str:
        """Formats a value with the metric's digits; NaN, which means not measured, as a dash."""
        return "–" if math.isnan(value) else f"{value:,.{self.digits}f}"

    def format_difference(self, value: float) -> str:
        """Formats a difference with its sign and one more digit: `+0.35`."""
        written = f"{value:+,.{self.digits + 1}f}"
        return written if written.strip("+-0.,") else written.replace("-", "+")


_DECLARED = (
    Metric("top1", "Top-1", "%", 1, "maximize"),
    Metric("top5", "Top-5", "%", 1, "maximize"),
    Metric("test_loss", "Test loss", "nats", 3, "minimize"),
    Metric("ece", "Expected calibration error", "%", 2, "minimize"),
    Metric("train_loss", "Training loss", "nats", 3),
    Metric("learning_rate", "Learning rate", "", 4),
    Metric("train_time_ratio", "Relative step time", "× no attention", 2, "minimize", measured=True),
    Metric("test_time_ratio", "Relative inference time", "× no attention", 2, "minimize", measured=True),
    Metric("train_images_per_second", "Training", "images/s", 0, "maximize", measured=True),
    Metric("test_images_per_second", "Inference", "images/s", 0, "maximize", measured=True),
    Metric("peak_memory_mib", "Peak memory", "MiB", 1, "minimize", measured=True),
    Metric("parameters", "Parameters", "", 0, "minimize", counted=True),
    Metric("seconds", "Time", "s", 1),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.key: metric for metric in _DECLARED})

# Possible objectives of a search, with their directions, and the measured costs among all metrics.
OBJECTIVES: Mapping[str, str] = {metric.key: metric.direction for metric in _DECLARED if metric.direction}
COSTS = frozenset(metric.key for metric in _DECLARED if metric.measured)
# The metrics that verdicts can be about: results of training.
JUDGED = tuple(key for key in OBJECTIVES if key not in COSTS and not METRICS[key].counted)

# The metrics of a whole cell, and those of each epoch.
CELL_METRICS = ("top1", "top5", "test_loss", "ece", "parameters", "seconds")
EPOCH_METRICS = ("train_loss", "test_loss", "top1", "learning_rate")
