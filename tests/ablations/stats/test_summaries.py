from __future__ import annotations

import pandas as pd
import pytest

from ablations.stats import judge, summarise
from tests.builders.frames import against_nothing, frame


def trained(**top1: list[float]) -> pd.DataFrame:
    return frame(top1).assign(parameters=10)


def test_summaries_are_of_trained_variants_in_the_order_of_the_design() -> None:
    cells, baselines = trained(sa=[51.0, 53.0], none=[50.0, 50.0], other=[40.0]), against_nothing("sa", "untrained")
    contrasts = judge(cells, baselines, 1.0)
    summaries = summarise(cells, ["none", "sa", "untrained", "other"], baselines, contrasts)
    assert [(summary.variant, summary.baseline, summary.is_baseline) for summary in summaries] == [
        ("none", "none", True),
        ("sa", "none", False),
        ("other", None, False),
    ]
    assert [summary.contrast for summary in summaries] == [None, contrasts[0], None]
    assert [summary.top1.mean for summary in summaries] == [50.0, 52.0, 40.0]
    assert [summary.parameters for summary in summaries] == [10] * 3


def test_the_judged_metric_is_summarised_beside_the_accuracy() -> None:
    cells = trained(sa=[51.0, 53.0], none=[50.0, 50.0])
    cells["test_loss"] = [0.5, 0.7, 1.0, 1.2]
    baselines = against_nothing("sa")
    contrasts = judge(cells, baselines, 0.1, "test_loss")
    none, sa = summarise(cells, ["none", "sa"], baselines, contrasts, metric="test_loss")
    assert (sa.top1.mean, sa.judged.mean, none.judged.mean) == (52.0, pytest.approx(0.6), pytest.approx(1.1))
    assert sa.contrast is not None
    assert sa.contrast.difference is not None
    assert sa.contrast.difference.mean == pytest.approx(-0.5)
    (accuracy,) = summarise(cells, ["sa"], baselines, contrasts)
    assert accuracy.judged == accuracy.top1


def test_diverged_replicates_are_counted_and_excluded_from_means() -> None:
    cells, baselines = trained(none=[50.0, 50.0], sa=[51.0, 53.0]), against_nothing("sa")
    summaries = summarise(cells, ["none", "sa"], baselines, [], {"sa": 2})
    assert [(summary.diverged, summary.replicates) for summary in summaries] == [(0, "2"), (2, "2 (+2 diverged)")]
