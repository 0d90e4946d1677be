"""The metrics of a cell, declared once: names, labels, units, digits, directions; for tables, figures and MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Metric:
    """A number that a cell has, under `key` in its result.

    `direction` says which values are better, `maximize` or `minimize`; it is empty where no search can look for them.
    `measured` says whether the number is a cost that a variant has (`ablations.analysis.costs`), `counted` whether it
    is a property of the network that training does not change; neither can be judged over replicates.
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
        """Whether it is a share of images that a network gets right."""
        return self.in_points and self.direction == "maximize"

    @property
    def difference_unit(self) -> str:
        """The unit of differences; empty where there is none."""
        return "points" if self.in_points else self.unit

    def quantity(self, value: float) -> str:
        """Writes a difference without a sign, as a margin, with its unit: `1 point`, `0.2 points`."""
        unit = "point" if self.in_points and value == 1 else self.difference_unit
        return f"{value:g} {unit}".rstrip()

    @property
    def axis(self) -> str:
        """Label of an axis: name and unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def format(self, value: float) -> str:
        """Writes a value with the digits that mean something; a dash for what was not measured."""
        return "–" if math.isnan(value) else f"{value:,.{self.digits}f}"

    def format_difference(self, value: float) -> str:
        """Writes a difference with its sign and a digit more: `+0.35`."""
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

# The metrics that a search can look for, with their directions, and those of them that are measured costs.
OBJECTIVES: Mapping[str, str] = {metric.key: metric.direction for metric in _DECLARED if metric.direction}
COSTS = frozenset(metric.key for metric in _DECLARED if metric.measured)
# The metrics that verdicts can be about: results of training that every cell has.
JUDGED = tuple(key for key in OBJECTIVES if key not in COSTS and not METRICS[key].counted)

# What a cell has once, and what it has after every epoch.
CELL_METRICS = ("top1", "top5", "test_loss", "ece", "parameters", "seconds")
EPOCH_METRICS = ("train_loss", "test_loss", "top1", "learning_rate")
