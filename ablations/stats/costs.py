"""Verdicts on costs: slower or faster than the baseline, the same within a margin, or undecided.

    same       the ratio is within the margin (two one-sided tests on the log ratio), even if significantly not 1
    slower,    the ratio differs significantly from 1 after correction for the family
    faster
    undecided  neither: more copies are needed
    none       fewer than two copies, so no interval

The replicates of a cost are copies of the networks, built and timed separately (`ablations.measure.speed`). All
contrasts of a study form one family, and both kinds of claim are corrected for it as for accuracies
(`ablations.stats.significance`): sign flips from 6 copies on, t-tests with Holm's correction below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd

from ablations.stats.family import Inference, infer
from ablations.stats.layout import Layout
from ablations.stats.significance import ALPHA, Responses

_PERCENT = 100  # log ratios are tested in hundredths, because the tests' tolerances are for values in percent


class CostVerdict(Enum):
    """The verdict on a cost."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"
    UNDECIDED = "undecided"
    NONE = "no verdict"


@dataclass(frozen=True)
class CostContrast:
    """A variant's time relative to its baseline's, over the copies of both.

    Attributes:
        variant, baseline: by name.
        ratio: geometric mean of the relative time over copies; NaN without copies.
        low, high: its 95 % CI by Student's t on log ratios, not corrected for the family; NaN for a single copy.
        n: the number of copies.
        p: p-value of no difference, corrected for the family; 1 if it cannot be tested.
        p_equivalence: p-value of the equivalence tests, corrected likewise.
        verdict: the conclusion at 5 %.
    """

    variant: str
    baseline: str
    ratio: float
    low: float
    high: float
    n: int
    p: float
    p_equivalence: float
    verdict: CostVerdict


def judge_costs(values: pd.DataFrame, baselines: Mapping[str, str], margin: float) -> list[CostContrast]:
    """Judges a family of contrasts, in the order of `baselines`.

    Args:
        values: one row per copy of a variant, with `variant`, `copy` and `log_ratio`: the log of its time relative to
            the plain network of the same copy, 0 in rows of the plain network.
        baselines: the baseline of each variant, by name; variants that are their own baseline are skipped.
        margin: smallest relative difference of interest; with 0.05, ratios from 1 / 1.05 to 1.05 are the same.

    Raises:
        ValueError: if the margin is not above 0, or a copy of a variant occurs twice.
    """
    if not margin > 0:
        raise ValueError(f"margin={margin}: must be more than 0")
    layout = Layout.of(values.rename(columns={"copy": "replicate"}), "log_ratio")
    pairs = [(variant, baseline) for variant, baseline in baselines.items() if variant != baseline]
    differences = [_PERCENT * (layout.column(variant) - layout.column(baseline)) for variant, baseline in pairs]
    copies = len(layout.replicates)
    responses = Responses(
        np.empty((copies, 0)),  # times of one copy are correlated over variants, so their variances cannot be pooled
        np.column_stack(differences) if differences else np.empty((copies, 0)),
        np.full(len(pairs), 2.0),
        is_pooled=False,
    )
    inferences = infer(lambda *_: responses, len(pairs), _PERCENT * math.log1p(margin), None)
    return [_concluded(*pair, inference) for pair, inference in zip(pairs, inferences, strict=True)]


def _concluded(variant: str, baseline: str, inference: Inference) -> CostContrast:
    found = inference.estimate
    if found is None:
        nan = math.nan
        return CostContrast(variant, baseline, nan, nan, nan, 0, inference.p, inference.p_equivalence, CostVerdict.NONE)
    ratio, low, high = (math.exp(value / _PERCENT) for value in (found.mean, found.low, found.high))
    ps = inference.p, inference.p_equivalence
    return CostContrast(variant, baseline, ratio, low, high, found.n, *ps, _verdict(inference))


def _verdict(inference: Inference) -> CostVerdict:
    if inference.estimate is None or not inference.estimate.has_interval:
        return CostVerdict.NONE
    if inference.p_equivalence <= ALPHA:
        return CostVerdict.SAME
    if inference.p <= ALPHA:
        return CostVerdict.SLOWER if inference.estimate.mean > 0 else CostVerdict.FASTER
    return CostVerdict.UNDECIDED
