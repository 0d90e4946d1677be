"""Sentences on verdicts have their statistics and assumptions, and nothing more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ablations.common.metrics import METRICS
from ablations.reporting.text.verdicts import (
    assumptions_sentence,
    contrast_sentence,
    method_sentences,
    tally,
    verdict_mark,
)
from ablations.stats import Contrast, InterimAnalyses, Reason, ReasonCode, Verdict
from tests.builders.verdicts import CLEAR, EQUAL, LOST, OVER_INTERIMS, SINGLE, SINGLY, SMALL, SPREAD, contrast, said_of
from tests.wording import worded

TOP1 = METRICS["top1"]
UNSEEN = worded("verdicts.unseen", percent=31)
NO_SPREAD = f": {worded('reasons.no_spread')}"
ATTAINABLE = f": {worded('reasons.attainable', least=0.12)}"


@pytest.mark.parametrize(
    ("judged", "sentence"),
    [
        (contrast(CLEAR, Verdict.HELPS, p=0.01), said_of("helps", SPREAD, "+1.50", "+1.00", "+2.00", ", p = 0.01")),
        (contrast(LOST, Verdict.HURTS, p=0.04), said_of("hurts", SPREAD, "-1.50", "-2.00", "-1.00", ", p = 0.04")),
        (
            contrast(LOST, Verdict.HURTS, p=0.0002, interim=8),
            said_of("hurts", OVER_INTERIMS, "-1.50", "-2.00", "-1.00", ", p = 0.001 or less"),
        ),
        (
            contrast(SMALL, Verdict.EQUIVALENT, p=0.4, p_equivalence=0.001),
            said_of("equivalent within 0.25 points", SPREAD, "-0.03", "-0.11", "+0.06", reason=UNSEEN),
        ),
        (
            contrast(SMALL, Verdict.EQUIVALENT, p=0.05, p_equivalence=0.001),
            said_of(
                "equivalent within 0.25 points",
                SPREAD,
                "-0.03",
                "-0.11",
                "+0.06",
                reason=f"; {worded('verdicts.smaller')}{UNSEEN}",
            ),
        ),
        (
            contrast(LOST, Verdict.HURTS, p=0.04, assumes_normal=True),
            said_of("hurts", SPREAD, "-1.50", "-2.00", "-1.00", f", p = 0.04, {worded('verdicts.normal')}"),
        ),
        (
            contrast(CLEAR, Verdict.HELPS, p=0.01, interim=8, adjusted=1.2),
            said_of(
                "helps", OVER_INTERIMS, "+1.50", "+1.00", "+2.00", f", {worded('verdicts.adjusted')} +1.20, p = 0.01"
            ),
        ),
        (
            contrast(LOST, Verdict.UNSTABLE, p=0.2, reason=Reason(ReasonCode.NO_SPREAD)),
            said_of("unstable", SPREAD, "-1.50", "-2.00", "-1.00", ", p = 0.2", reason=NO_SPREAD),
        ),
        (
            contrast(SMALL, Verdict.UNDECIDED, p=0.4),
            said_of("undecided", SPREAD, "-0.03", "-0.11", "+0.06", ", p = 0.4"),
        ),
        (
            contrast(SMALL, Verdict.UNDECIDED, reason=Reason(ReasonCode.ATTAINABLE_P, 0.125)),
            said_of("undecided", SPREAD, "-0.03", "-0.11", "+0.06", reason=ATTAINABLE),
        ),
        (
            contrast(EQUAL, Verdict.UNDECIDED, reason=Reason(ReasonCode.NO_SPREAD)),
            said_of("undecided", SINGLY, "+1.00", n=4, reason=NO_SPREAD),
        ),
        (
            contrast(SINGLE, Verdict.NONE, reason=Reason(ReasonCode.ONE_REPLICATE)),
            said_of("no verdict", SINGLY, "+1.00", n=1, reason=f": {worded('reasons.one_replicate')}"),
        ),
        (
            contrast(None, Verdict.NONE, reason=Reason(ReasonCode.NO_PAIR)),
            worded("conclusions.no_pair", treatment="sa", baseline="none"),
        ),
    ],
)
def test_every_verdict_has_a_sentence_with_its_statistics(judged: Contrast, sentence: str) -> None:
    assert contrast_sentence(judged, 0.25, TOP1) == sentence


def test_another_metric_has_its_unit_and_digits() -> None:
    judged = contrast(SMALL, Verdict.EQUIVALENT, p=0.4, p_equivalence=0.001)
    said = contrast_sentence(judged, 0.25, METRICS["test_loss"])
    assert said == said_of("equivalent within 0.25 nats", SPREAD, "-0.0300", "-0.1100", "+0.0600", reason=UNSEEN)


def test_the_verdict_of_a_test_that_assumes_normal_differences_is_marked_in_tables() -> None:
    few, many = contrast(CLEAR, Verdict.HELPS, assumes_normal=True), contrast(CLEAR, Verdict.HELPS)
    assert verdict_mark(few) != verdict_mark(many) == "helps"
    assert verdict_mark(few).startswith("helps ")
    assert assumptions_sentence([few, many]).startswith(verdict_mark(few).removeprefix("helps "))
    assert assumptions_sentence([many]) == ""


@pytest.mark.parametrize("verdict", [Verdict.UNSTABLE, Verdict.NONE])
def test_verdicts_without_a_test_are_not_marked(verdict: Verdict) -> None:
    assert verdict_mark(contrast(CLEAR, verdict, assumes_normal=True)) == verdict.value


def test_a_table_with_an_unstable_variant_explains_it() -> None:
    assert assumptions_sentence([contrast(CLEAR, Verdict.UNSTABLE)]).startswith("Unstable: ")


@pytest.mark.parametrize(("few", "many"), [(True, False), (False, True), (True, True)])
def test_the_method_has_the_assumption_of_each_used_test(few: bool, many: bool) -> None:
    contrasts = [contrast(CLEAR, Verdict.HELPS, assumes_normal=True)] * few + [contrast(CLEAR, Verdict.HELPS)] * many
    said = method_sentences(contrasts, None, "on one set of data")
    assert (worded("verdicts.assumed_normal") in said) is few
    assert (worded("verdicts.symmetric") in said) is many


def test_the_method_describes_the_correction_for_interim_analyses_and_the_bias_of_early_decisions() -> None:
    decided: Contrast = contrast(CLEAR, Verdict.HELPS, interim=9, adjusted=1.0)
    interims = InterimAnalyses((9, 12))
    assert worded("verdicts.early") in method_sentences([decided], interims, "")
    said = method_sentences([replace(decided, adjusted=None)], interims, "")
    assert said.endswith(worded("verdicts.looked_at", sizes="9, 12"))


def test_verdicts_are_counted() -> None:
    verdicts = [Verdict.HELPS, Verdict.UNDECIDED, Verdict.UNDECIDED, Verdict.NONE]
    counted = "1 helps, 2 undecided, 1 without a verdict"
    assert tally([contrast(EQUAL, one) for one in verdicts]) == worded("conclusions.tally", number=4, verdicts=counted)
    assert tally([]) == ""
