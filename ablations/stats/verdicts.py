"""Contrasts to verdicts: does a variant help, hurt, come to the same within a margin, or is that undecided?

    unstable     runs of the variant, or of its baseline, fail or scatter far more than others: no mean describes it
    equivalent   the difference is less than the margin either way (TOST): whatever else it is, it does not matter
    helps, hurts the test of the family says that there is a difference
    undecided    neither: the study is too small for the difference that there is
    none         one replicate, or no pair of them: nothing says how sure anything is

All contrasts of a study are a family, and each kind of claim is corrected for it: at most 5 % of studies of variants
that do nothing say of any of them that it helps or hurts, and at most 5 % of studies of variants that differ by the
margin say of any that it is equivalent. `ablations.stats.significance` says by which tests and under which assumptions,
`ablations.stats.interims` what holds where a study was judged on the way, `ablations.stats.stability` what unstable is.
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
    """What a contrast comes to."""

    HELPS = "helps"
    HURTS = "hurts"
    EQUIVALENT = "equivalent"
    UNSTABLE = "unstable"
    UNDECIDED = "undecided"
    NONE = "no verdict"


class ReasonCode(Enum):
    """Why a contrast has no verdict, is undecided or is unstable; the number of its `Reason` in brackets."""

    NO_PAIR = "no_pair"  # no replicate of both is finished
    ONE_REPLICATE = "one_replicate"
    UNSTABLE = "unstable"  # as the stabilities of the contrast say
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
    """A variant against its baseline, over the replicates that both have.

    Attributes:
        variant, baseline: by name.
        difference: variant less baseline in the metric's unit, with its 95 % CI; under interim analyses, an interval
            that holds at all of them together. None where no replicate has both.
        p: of no difference, corrected for the family and for interim analyses; None where it could decide nothing.
        p_equivalence: of the equivalence tests, corrected likewise.
        verdict: what follows.
        reason: why there is none, why it is undecided, or that it is unstable; None where there is nothing to say.
        interim: how many replicates the last interim analysis had that the contrast took part in, None where there are
            no interim analyses.
        assumes_normal: whether the tests assume normal differences, as they do of fewer than 6 replicates.
        stabilities: how stable the variant and its baseline are, as far as that is known.
        lost: replicates of the variant or the baseline that diverged or failed, and are in no number here.
        adjusted: of a difference that was decided by an interim analysis, an estimate that allows for its having been
            selected so.
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
        """Whether more replicates are not needed: the tests have decided, whatever else is the matter."""
        return any(p is not None and p <= ALPHA for p in (self.p, self.p_equivalence))

    @property
    def unseen_failures(self) -> float | None:
        """The rate of failures, of an equivalent variant, that its replicates cannot exclude at 95 %.

        That is the upper Clopper-Pearson bound of none in n (22 % for 12): equivalence is about runs that do not fail.
        """
        if self.verdict is not Verdict.EQUIVALENT or self.difference is None:
            return None
        return float(1 - ALPHA ** (1 / self.difference.n))


@dataclass(frozen=True)
class Question:
    """What is judged under one protocol; the arguments of `judge`."""

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
        cells: a row a cell that has ended, with `variant`, `replicate` and the metric, nan where it diverged or failed.
        baselines: what each variant is compared with, by name; baselines with themselves.
        margin: the least difference that matters, in the metric's unit.
        metric: by its key in `ablations.common.metrics`, which says what is better.
        interims: when the study was judged on the way to this; None where it was not.

    Raises:
        ValueError: if the margin is not above 0, the metric is none that can be better or worse, or a replicate of a
            variant is there twice.
    """
    return _judge([Question(cells, baselines, margin)], metric, interims)[0]


def judge_together(questions: Sequence[Question], metric: str = "top1") -> list[list[Contrast]]:
    """Judges the contrasts of several protocols as one family; returns those of each protocol, in their order.

    From 6 replicates on, the signs of a replicate are flipped under all protocols at once: replicates of one number
    share their seed. Below 6, variances are moderated within each protocol, because spreads differ between protocols,
    and p values are corrected over all. Margin and stability are those of each protocol.

    Raises:
        ValueError: as `judge` does.
    """
    return _judge(questions, metric, None)


def _judge(questions: Sequence[Question], metric: str, interims: InterimAnalyses | None) -> list[list[Contrast]]:
    better = sign_of(metric)
    layouts = [Layout.of(question.cells, metric) for question in questions]
    replicates = np.unique(np.concatenate([layout.replicates for layout in layouts]))
    layouts = [layout.over(replicates) for layout in layouts]
    pairs = [{name: other for name, other in question.baselines.items() if name != other} for question in questions]
    members = [(number, name) for number, own in enumerate(pairs) for name in own]

    def responses_at(size: int | None, active: Sequence[int]) -> Responses | None:
        asked = [members[place] for place in active]
        wanted = {(number, name) for number, variant in asked for name in (variant, pairs[number][variant])}
        if size is not None and not all(layouts[number].has_ended(name, size) for number, name in wanted):
            return None
        seen = layouts if size is None else [layout.before(size) for layout in layouts]
        return Responses.joined([layout.responses(own) for layout, own in zip(seen, pairs, strict=True)])

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
    """Returns 1 where greater values of a metric are better, -1 where lesser ones are; raises ValueError otherwise."""
    known = METRICS.get(metric)
    if known is None or not known.direction:
        choices = ", ".join(key for key, one in METRICS.items() if one.direction)
        raise ValueError(f"metric={metric}: must be one of {choices}")
    return 1.0 if known.direction == "maximize" else -1.0


def _stabilities(
    layout: Layout, pairs: Mapping[str, str], margin: float, better: float
) -> dict[str, dict[str, Stability]]:
    """Returns by baseline and name how stable variants are, each beside those that share its baseline."""
    step = resolution(layout.values)
    found = {}
    for baseline in dict.fromkeys(pairs.values()):
        names = [baseline, *(name for name, other in pairs.items() if other == baseline)]
        values = [better * layout.results(name) for name in names]
        found[baseline] = stabilities(names, values, margin, step)
    return found


def _decisive(inference: Inference) -> tuple[float | None, float | None]:
    """Returns both p values, None where the replicates cannot decide anything."""
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
    """Returns what the tests of one member of a family come to.

    Args:
        inference: the tests.
        better: 1 where greater values are better, -1 where lesser ones are.
        failed: runs that gave no result or fell far below the others; equivalence is about runs that do not.
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
    """Returns why a contrast is undecided, where there is more to say than that its replicates are few."""
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
    """Returns the relative efficiency of the paired design; None of fewer than three replicates of each contrast.

    That is the variance of unpaired differences over that of paired ones, over all contrasts: how many times as many
    replicates the study would have needed without pairs.
    """
    layout, paired, unpaired = Layout.of(cells, metric), 0.0, 0.0
    for variant, baseline in baselines.items():
        own, other = layout.column(variant), layout.column(baseline)
        both = ~np.isnan(own) & ~np.isnan(other)
        if variant != baseline and both.sum() > 2:
            paired += float((own - other)[both].var(ddof=1))
            unpaired += float(own[both].var(ddof=1) + other[both].var(ddof=1))
    return unpaired / paired if paired > 0 else None


def missing_pairs(cells: pd.DataFrame, baselines: Mapping[str, str]) -> dict[str, list[int]]:
    """Returns the replicates that a contrast's variant or its baseline has and the other lacks, by variant."""
    known = cells[cells["top1"].notna()]
    replicates = {str(name): set(own.astype(int)) for name, own in known.groupby("variant")["replicate"]}
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
