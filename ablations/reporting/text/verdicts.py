"""Verdicts as text: sentences on contrasts, marks in tables, and assumptions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ablations.analysis.effects import Effect
from ablations.common.metrics import Metric
from ablations.common.wording import count
from ablations.reporting.text.reasons import reason_clause
from ablations.stats import Contrast, InterimAnalyses, Verdict
from ablations.stats.significance import ALPHA, FLIPPED

_MARK = "†"  # marks verdicts that assume normal differences
_TESTED = (Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT, Verdict.UNDECIDED)


def verdict_mark(judged: Contrast | Effect) -> str:
    """Returns a verdict, with a mark if its test assumes normal differences."""
    return marked(judged.verdict, judged.assumes_normal)


def marked(verdict: Verdict, assumes_normal: bool) -> str:
    """Returns a verdict, with a mark if it is based on a test that `assumes_normal`."""
    return f"{verdict.value} {_MARK}" if assumes_normal and verdict in _TESTED else verdict.value


def assumptions_sentence(judged: Iterable[Contrast | Effect]) -> str:
    """Explains the mark and `unstable` in a table; empty if neither occurs."""
    known = list(judged)
    sentences = []
    if any(map(_is_normal, known)):
        sentences.append(f"{_MARK} Assumes normal differences: fewer than {FLIPPED} replicates.")
    if any(one.verdict is Verdict.UNSTABLE for one in known):
        sentences.append(
            "Unstable: some runs fail, or the variance is far above that of other variants, so the mean "
            "is not representative."
        )
    return " ".join(sentences)


def tally(contrasts: Sequence[Contrast]) -> str:
    """Counts the verdicts: `4 contrasts: 1 helps, 3 undecided.`"""
    verdicts = Counter(contrast.verdict for contrast in contrasts)
    words = {Verdict.NONE: "without a verdict"}
    counted = [f"{verdicts[verdict]} {words.get(verdict, verdict.value)}" for verdict in Verdict if verdicts[verdict]]
    return f"{count(len(contrasts), 'contrast')}: {', '.join(counted)}." if contrasts else ""


def contrast_sentence(contrast: Contrast, margin: float, metric: Metric) -> str:
    """Describes a contrast and its verdict in a sentence.

    For instance `w/o CS against origin: equivalent within 0.2 points (n = 8, difference -0.03, 95 % CI -0.11 to +0.06);
    failures of up to 31 % of runs cannot be excluded.`
    """
    start = f"{contrast.variant} against {contrast.baseline}"
    difference, written = contrast.difference, metric.format_difference
    if difference is None:
        return f"{start}: no verdict, {reason_clause(contrast)}."
    numbers = f"n = {difference.n}, difference {written(difference.mean)}"
    if difference.has_spread:
        over = " over all interim analyses" if contrast.interim else ""
        numbers += f", 95 % CI{over} {written(difference.low)} to {written(difference.high)}"
    if contrast.adjusted is not None and contrast.verdict is not Verdict.EQUIVALENT:
        numbers += f", median-unbiased {written(contrast.adjusted)}"
    if contrast.p is not None and contrast.verdict is not Verdict.EQUIVALENT:
        numbers += f", p = {contrast.p:.2g}" if contrast.p >= 0.001 else ", p = 0.001 or less"
    if _is_normal(contrast):
        numbers += ", assumes normal differences"
    if contrast.verdict is Verdict.EQUIVALENT:
        more = (
            "; the difference is significant, but within the margin"
            if contrast.p is not None and contrast.p <= ALPHA
            else ""
        )
        unseen = f"; failures of up to {100 * (contrast.unseen_failures or 0):.0f} % of runs cannot be excluded"
        return f"{start}: equivalent within {metric.quantity(margin)} ({numbers}){more}{unseen}."
    reason = f": {reason_clause(contrast)}" if contrast.reason else ""
    return f"{start}: {contrast.verdict.value} ({numbers}){reason}."


def method_sentences(contrasts: Sequence[Contrast], interims: InterimAnalyses | None, on: str) -> str:
    """Describes the tests behind verdicts and their assumptions; `on` names the data."""
    many = f"{count(len(contrasts), 'contrast')} as one family" if len(contrasts) > 1 else "a single contrast"
    judged = [contrast for contrast in contrasts if contrast.difference is not None and contrast.difference.n > 1]
    is_normal = {contrast.assumes_normal for contrast in judged}
    tests = []
    if False in is_normal:
        tests.append(
            "helps and hurts by a sign-flip permutation test of whole replicates (step-down maximum |t|), which "
            "assumes symmetric differences"
        )
    if True in is_normal:
        tests.append(
            f"with fewer than {FLIPPED} replicates by moderated t-tests with Holm's correction, which assume normal "
            "differences"
        )
    text = (
        f"Verdicts are from paired tests over replicates, {on}, of {many}: {'; '.join(tests)}; equivalent by two "
        "one-sided t-tests with Holm's correction, for runs that do not fail. "
    )
    if interims:
        sizes = ", ".join(map(str, interims.sizes))
        text += f"They and the intervals are corrected for interim analyses at {sizes} replicates."
        if any(contrast.adjusted is not None for contrast in contrasts):
            text += (
                " A difference decided early at an interim analysis is overestimated on average; the median-unbiased "
                "estimate corrects for that."
            )
        return text
    return (
        f"{text}Intervals are Student's t, not corrected for the number of contrasts. Adding replicates after looking "
        "at the verdicts inflates their error rate; replicates=auto corrects for that."
    )


def _is_normal(judged: Contrast | Effect) -> bool:
    return judged.assumes_normal and judged.verdict in _TESTED
