"""Formats of accuracies, differences, times and multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ablations.common.metrics import COSTS, METRICS, Metric
from ablations.stats import Estimate

# Metrics that are not evaluated on test or validation images.
_NOT_EVALUATED = COSTS | {"parameters", "seconds", "train_loss", "learning_rate"}


def on_validation(key: str) -> str:
    """Returns the axis label of a metric in a search's selection, which evaluates on the validation images."""
    axis = METRICS[key].axis
    if key in _NOT_EVALUATED:
        return axis
    axis = axis.removeprefix("Test ")
    return f"Validation {axis[0].lower()}{axis[1:]}"


def difference_with_interval(difference: Estimate, metric: Metric = METRICS["top1"]) -> str:
    """Formats a difference with its confidence interval, if any: `+0.35 [-0.10, +0.80]`."""
    written = metric.format_difference
    if difference.has_interval and not difference.has_spread:
        return f"{written(difference.mean)} (no spread)"  # equal in every replicate
    interval = f" [{written(difference.low)}, {written(difference.high)}]" if difference.has_interval else ""
    return f"{written(difference.mean)}{interval}"


def mean_with_interval(mean: Estimate, metric: Metric = METRICS["top1"]) -> str:
    """Formats a mean with its confidence interval, if any: `63.5 [62.8, 64.3]`."""
    interval = f" [{metric.format(mean.low)}, {metric.format(mean.high)}]" if mean.has_spread else ""
    return metric.format(mean.mean) + interval


def in_gflops(multiply_adds: Mapping[str, float]) -> dict[str, str]:
    """Formats multiply-adds in billions, with as many decimals as give the largest four digits."""
    largest = max(multiply_adds.values(), default=0) / 1e9
    decimals = max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 0
    return {name: f"{value / 1e9:,.{decimals}f}" for name, value in multiply_adds.items()}
