"""From contrasts to verdicts: a variant helps, hurts, is equivalent within a margin, or is undecided.

    unstable     runs of the variant or its baseline scatter far more than others: no mean describes them
    equivalent   the difference is within the margin (TOST), even if significantly not 0
    helps, hurts the difference is significant after correction for the family
    undecided    neither: the study is too small for the true difference
    none         no pair of replicates, or only one: no interval

All contrasts of a study form a family, and both kinds of claim are corrected for it: at most 5 % of studies of variants
without effect conclude that any of them helps or hurts, and at most 5 % of studies of variants that differ by the
margin conclude that any is equivalent. See `ablations.stats.significance` for the tests and their assumptions,
`ablations.stats.interims` for interim analyses, and `ablations.stats.stability` for unstable variants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import pandas as pd

from ablations.common.metrics import METRICS
from ablations.stats.estimates import Estimate
from ablations.stats.family import Inference, infer
from ablations.stats.interims import InterimAnalyses
from ablations.stats.layout import Layout
from ablations.stats.significance import ALPHA, Responses, resolution
from ablations.stats.stability import Stability, stabilities


class Verdict(Enum):
    """The verdict on a contrast."""

    HELPS = "helps"
    HURTS = "hurts"
    EQUIVALENT = "equivalent"
    UNSTABLE = "unstable"
    UNDECIDED = "undecided"
    NONE = "no verdict"


class ReasonCode(Enum):
    """Why a contrast has no verdict, is undecided or is unstable; in brackets the number of its `Reason`."""

    NO_PAIR = "no_pair"  # no replicate is finished for both
    ONE_REPLICATE = "one_replicate"
    UNSTABLE = "unstable"  # see the stabilities of the contrast
    LOST_REPLICATES = "lost_replicates"  # equivalence is not concluded: replicates without a result [how many]
    STRAY_RUNS = "stray_runs"  # equivalence is not concluded: runs far below the others [how many]
    BEFORE_FIRST_ANALYSIS = "before_first_analysis"  # [replicates of the first interim analysis]
    NO_SPREAD = "no_spread"  # the same difference in every replicate
    ATTAINABLE_P = "attainable_p"  # too few replicates differ [smallest attainable p-value]
    MULTIPLICITY = "multiplicity"  # significant alone, not within the family [contrasts of the family]


@dataclass(frozen=True)
class Reason:
    """A code and, where it has one, its number; `ablations.reporting.text.reasons` writes them as text."""

    code: ReasonCode
    number: float | None = None


@dataclass(frozen=True)
class Contrast:
    """A variant against its baseline, over the replicates of both.

    Attributes:
        variant, baseline: by name.
        difference: variant minus baseline in the metric's unit, with its 95 % CI; with interim analyses, an interval
            that holds simultaneously at all of them. None without a pair.
        p: p-value of no difference, corrected for the family and for interim analyses; None if it cannot decide.
        p_equivalence: p-value of the equivalence tests, corrected likewise.
        verdict: the conclusion.
        reason: why there is no verdict, or why it is undecided or unstable; None without a reason.
        interim: number of replicates in the last interim analysis of the contrast; None without interim analyses.
        assumes_normal: whether the tests assume normal differences, which they do below 6 replicates.
        stabilities: of the variant and its baseline, if known.
        lost: number of replicates of either that diverged or failed, which all estimates exclude.
        adjusted: estimate corrected for selection, if an interim analysis decided the difference.
    """

    variant: str
    baseline: str
    difference: Estimate | None
    p: float | None
    p_equivalence: float | None
    verdict: Verdict
    reason: Reason | None = None
    interim: int | None = None
    assumes_normal: bool = False
    stabilities: tuple[Stability, ...] = ()
    lost: int = 0
    adjusted: float | None = None

    @property
    def is_decided(self) -> bool:
        """Whether a test is significant, so that no more replicates are needed."""
        return any(p is not None and p <= ALPHA for p in (self.p, self.p_equivalence))

    @property
    def unseen_failures(self) -> float | None:
        """The failure rate of an equivalent variant that its replicates cannot exclude at 95 %.

        This is the upper Clopper-Pearson bound for 0 failures in n runs (22 % for 12).
        """
        if self.verdict is not Verdict.EQUIVALENT or self.difference is None:
            return None
        return float(1 - ALPHA ** (1 / self.difference.n))


@dataclass(frozen=True)
class Question:
    """The arguments of `judge` for one protocol."""

    cells: pd.DataFrame
    baselines: Mapping[str, str]
    margin: float


def judge(
    cells: pd.DataFrame,
    baselines: Mapping[str, str],
    margin: float,
    metric: str = "top1",
    interims: InterimAnalyses | None = None,
) -> list[Contrast]:
    """Judges every contrast of a study.

    Args:
        cells: one row per ended cell, with `variant`, `replicate` and the metric, NaN if it diverged or failed.
        baselines: the baseline of each variant, by name; a baseline's is itself.
        margin: smallest difference of interest, in the metric's unit.
        metric: a key of `ablations.common.metrics.METRICS`, which declares its direction.
        interims: the interim analyses of the study; None without any.

    Raises:
        ValueError: if the margin is not above 0, the metric has no direction, or a replicate of a variant occurs twice.
    """
    return _judge([Question(cells, baselines, margin)], metric, interims)[0]


def judge_together(questions: Sequence[Question], metric: str = "top1") -> list[list[Contrast]]:
    """Judges the contrasts of several protocols as one family; returns a list per protocol.

    From 6 replicates on, the signs of a replicate are flipped in all protocols at once, because replicates with the
    same number have the same seed. Below 6, variances are moderated within each protocol, because spreads differ
    between protocols, and p-values are corrected over all. Margin and stability are per protocol.

    Raises:
        ValueError: as `judge`.
    """
    return _judge(questions, metric, None)


def _judge(questions: Sequence[Question], metric: str, interims: InterimAnalyses | None) -> list[list[Contrast]]:
    better = sign_of(metric)
    layouts = [Layout.of(question.cells, metric) for question in questions]
    replicates = np.unique(np.concatenate([layout.replicates for layout in layouts]))
    layouts = [layout.over(replicates) for layout in layouts]
    pairs = [{name: other for name, other in question.baselines.items() if name != other} for question in questions]
    members = [(number, name) for number, baseline_of in enumerate(pairs) for name in baseline_of]

    def responses_at(size: int | None, active: Sequence[int]) -> Responses | None:
        open_members = [members[place] for place in active]
        wanted = {(number, name) for number, variant in open_members for name in (variant, pairs[number][variant])}
        if size is not None and not all(layouts[number].has_ended(name, size) for number, name in wanted):
            return None
        seen = layouts if size is None else [layout.before(size) for layout in layouts]
        return Responses.joined(
            [layout.responses(baseline_of) for layout, baseline_of in zip(seen, pairs, strict=True)]
        )

    by_protocol = [question.margin for question in questions]
    margins = np.array([by_protocol[number] for number, _ in members] or by_protocol)
    inferences = infer(responses_at, len(members), margins, interims)
    stable = [_stabilities(*known, better) for known in zip(layouts, pairs, by_protocol, strict=True)]
    judged: list[list[Contrast]] = [[] for _ in questions]
    for (number, variant), inference in zip(members, inferences, strict=True):
        layout, baseline = layouts[number], pairs[number][variant]
        known = stable[number][baseline]
        contrast = Contrast(
            variant,
            baseline,
            inference.estimate,
            *_decisive(inference),
            Verdict.NONE,
            interim=inference.interim,
            assumes_normal=inference.assumes_normal,
            stabilities=tuple(known[name] for name in (variant, baseline) if name in known),
            lost=layout.lost(variant) + layout.lost(baseline),
            adjusted=inference.adjusted,
        )
        judged[number].append(_conclude(contrast, inference, better, len(members), interims))
    return judged


def sign_of(metric: str) -> float:
    """Returns 1 if greater values of a metric are better, -1 if lower; raises ValueError for any other metric."""
    declared = METRICS.get(metric)
    if declared is None or not declared.direction:
        choices = ", ".join(key for key, one in METRICS.items() if one.direction)
        raise ValueError(f"metric={metric}: must be one of {choices}")
    return 1.0 if declared.direction == "maximize" else -1.0


def _stabilities(
    layout: Layout, pairs: Mapping[str, str], margin: float, better: float
) -> dict[str, dict[str, Stability]]:
    """Returns stabilities by baseline and variant; variants are compared with those of the same baseline."""
    step = resolution(layout.values)
    found = {}
    for baseline in dict.fromkeys(pairs.values()):
        names = [baseline, *(name for name, other in pairs.items() if other == baseline)]
        values = [better * layout.results(name) for name in names]
        found[baseline] = stabilities(names, values, margin, step)
    return found


def _decisive(inference: Inference) -> tuple[float | None, float | None]:
    """Returns both p-values, each None if the replicates cannot decide."""
    known = inference.estimate
    if known is None:
        return None, None
    p = inference.p if inference.least <= ALPHA and known.has_interval else None
    return p, inference.p_equivalence if known.has_spread else None


def _conclude(
    contrast: Contrast, inference: Inference, better: float, contrasts: int, interims: InterimAnalyses | None
) -> Contrast:
    """Fills in the verdict of a contrast, and its reason."""
    difference = contrast.difference
    if difference is None:
        return replace(contrast, reason=Reason(ReasonCode.NO_PAIR))
    if difference.n < 2:
        return replace(contrast, reason=Reason(ReasonCode.ONE_REPLICATE))
    if any(one.is_unstable for one in contrast.stabilities):
        return replace(contrast, verdict=Verdict.UNSTABLE, reason=Reason(ReasonCode.UNSTABLE))
    failed = contrast.lost + sum(one.strays for one in contrast.stabilities)
    verdict = decide(inference, better, failed)
    reason = _why_open(contrast, inference, contrasts, interims) if verdict is Verdict.UNDECIDED else None
    return replace(contrast, verdict=verdict, reason=reason)


def decide(inference: Inference, better: float, failed: int) -> Verdict:
    """Returns the verdict for one member of a family.

    Args:
        inference: the test results.
        better: 1 if greater values are better, -1 if lower.
        failed: number of runs without a result or far below the others, with which equivalence is not concluded.
    """
    if inference.estimate is None or not inference.estimate.has_interval:
        return Verdict.NONE
    if inference.p_equivalence <= ALPHA and not failed:
        return Verdict.EQUIVALENT
    if inference.p <= ALPHA:
        return Verdict.HELPS if better * inference.estimate.mean > 0 else Verdict.HURTS
    return Verdict.UNDECIDED


def _why_open(
    contrast: Contrast, inference: Inference, contrasts: int, interims: InterimAnalyses | None
) -> Reason | None:
    """Returns why a contrast is undecided; None if it only has too few replicates."""
    assert contrast.difference is not None
    if inference.p_equivalence <= ALPHA and contrast.lost:
        return Reason(ReasonCode.LOST_REPLICATES, contrast.lost)
    if inference.p_equivalence <= ALPHA:
        return Reason(ReasonCode.STRAY_RUNS, sum(one.strays for one in contrast.stabilities))
    if interims and inference.interim is None:
        return Reason(ReasonCode.BEFORE_FIRST_ANALYSIS, interims.sizes[0])
    if not contrast.difference.has_spread:
        return Reason(ReasonCode.NO_SPREAD)
    if inference.least > ALPHA:
        return Reason(ReasonCode.ATTAINABLE_P, inference.least)
    if contrast.difference.low > 0 or contrast.difference.high < 0:
        return Reason(ReasonCode.MULTIPLICITY, contrasts)
    return None


def relative_efficiency(cells: pd.DataFrame, baselines: Mapping[str, str], metric: str = "top1") -> float | None:
    """Returns the relative efficiency of the paired design; None without a contrast of three replicates.

    This is the variance of unpaired differences relative to paired ones, over all contrasts: the factor by which the
    study would need more replicates without pairing.
    """
    layout, paired, unpaired = Layout.of(cells, metric), 0.0, 0.0
    for variant, baseline in baselines.items():
        treatment, control = layout.column(variant), layout.column(baseline)
        both = ~np.isnan(treatment) & ~np.isnan(control)
        if variant != baseline and both.sum() > 2:
            paired += float((treatment - control)[both].var(ddof=1))
            unpaired += float(treatment[both].var(ddof=1) + control[both].var(ddof=1))
    return unpaired / paired if paired > 0 else None


def missing_pairs(cells: pd.DataFrame, baselines: Mapping[str, str]) -> dict[str, list[int]]:
    """Returns by variant the replicates that only the variant or only its baseline has."""
    finished = cells[cells["top1"].notna()]
    replicates = {str(name): set(numbers.astype(int)) for name, numbers in finished.groupby("variant")["replicate"]}
    found = {}
    for variant, baseline in baselines.items():
        alone = replicates.get(variant, set()) ^ replicates.get(baseline, set())
        if alone and variant != baseline:
            found[variant] = sorted(alone)
    return found


def undecided(contrasts: Iterable[Contrast]) -> list[Contrast]:
    """Returns the contrasts that more replicates could decide."""
    return [contrast for contrast in contrasts if not contrast.is_decided]


def family(baselines: Mapping[str, str]) -> Sequence[str]:
    """Returns the variants that are compared with another one: a study's contrasts."""
    return [variant for variant, baseline in baselines.items() if variant != baseline]
