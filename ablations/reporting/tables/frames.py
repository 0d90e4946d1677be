"""A study's tables as data frames of plain numbers, for CSV."""

from __future__ import annotations

import math

import pandas as pd

from ablations.analysis.effects import effects_frame
from ablations.analysis.study import StudyAnalysis

_PICKED = "picked by a search, which flatters it"


def variants_frame(analysis: StudyAnalysis) -> pd.DataFrame:
    """Returns a row a variant with a finished cell; what is not known or not measured is nan or empty.

    Accuracies are in percent, differences in points, step times over the plain network's. A search's variants have no
    verdict: they were picked for being good.
    """
    variants = {variant.name: variant for variant in analysis.design.variants}
    rows = []
    for summary in analysis.summaries:
        variant, contrast, ratio = variants[summary.variant], summary.contrast, summary.train_time_ratio
        difference = contrast.difference if contrast else None
        judged = None if analysis.design.is_search else contrast
        rows.append(
            {
                "variant": summary.variant,
                "model": variant.model["name"],
                "attention": variant.attention["name"],
                "parameters": summary.parameters,
                "multiply_adds": analysis.multiply_adds.get(summary.variant),
                "n": summary.top1.n,
                "diverged": summary.diverged,
                "top1": summary.top1.mean,
                "top1_low": summary.top1.low,
                "top1_high": summary.top1.high,
                "difference": difference.mean if difference else math.nan,
                "difference_low": difference.low if difference else math.nan,
                "difference_high": difference.high if difference else math.nan,
                "baseline": summary.baseline or "",
                "verdict": judged.verdict.value if judged else "",
                "reason": judged.reason if judged else _PICKED if contrast else "",
                "p": judged.p if judged else None,
                "step_time_ratio": ratio.median if ratio else math.nan,
                "step_time_ratio_low": ratio.low if ratio else math.nan,
                "step_time_ratio_high": ratio.high if ratio else math.nan,
                "images_per_second": summary.train_images_per_second,
                "peak_memory_mib": summary.peak_memory_mib,
            }
        )
    # Those of many variants are known of those alone that are shown.
    return pd.DataFrame(rows).astype({"multiply_adds": "Int64"})


def crossing_frame(analysis: StudyAnalysis) -> pd.DataFrame:
    """Returns a row an effect, in points."""
    frame = effects_frame(analysis.effects).rename(columns={"name": "effect", "mean": "points"})
    return frame[["effect", "reference", "order", "n", "points", "low", "high"]]


def front_frame(analysis: StudyAnalysis) -> pd.DataFrame:
    """Returns a row a variant that no other beats."""
    frame = analysis.tradeoffs
    return frame[frame["on_front"]].drop(columns=["on_front", "picked", "fits"])
