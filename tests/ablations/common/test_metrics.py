from __future__ import annotations

import math

from ablations.common.metrics import CELL_METRICS, COSTS, METRICS, OBJECTIVES, Metric


def test_the_directions_of_objectives_are_those_of_the_metrics() -> None:
    assert OBJECTIVES == {
        "top1": "maximize",
        "top5": "maximize",
        "test_loss": "minimize",
        "ece": "minimize",
        "train_time_ratio": "minimize",
        "test_time_ratio": "minimize",
        "train_images_per_second": "maximize",
        "test_images_per_second": "maximize",
        "peak_memory_mib": "minimize",
        "parameters": "minimize",
    }
    assert all(METRICS[name].direction == direction for name, direction in OBJECTIVES.items())


def test_costs_are_the_measured_objectives() -> None:
    assert OBJECTIVES.keys() - {"top1", "top5", "test_loss", "ece", "parameters"} == COSTS


def test_objectives_are_metrics_of_cells_or_costs_of_variants() -> None:
    assert OBJECTIVES.keys() <= {*CELL_METRICS, *COSTS}
    assert not COSTS & set(CELL_METRICS)


def test_a_metric_formats_its_axis_and_its_values() -> None:
    metric = Metric("peak_memory_mib", "Peak memory", "MiB", 1)
    assert (metric.axis, metric.format(1234.56), metric.format(math.nan)) == ("Peak memory (MiB)", "1,234.6", "–")
    assert Metric("parameters", "Parameters", "", 0).axis == "Parameters"
