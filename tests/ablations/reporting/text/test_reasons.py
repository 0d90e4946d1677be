"""Every reason code of a verdict has a text with its number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ablations.reporting.text.reasons import instability_clause, reason_clause
from ablations.stats import Reason, ReasonCode, Stability, Verdict
from tests.builders.verdicts import SMALL, contrast
from tests.wording import worded

FAILS = Stability("gc", 8, 9.0, 2, 2, 3.0, 0.7, is_unstable=True)
STEADY = replace(FAILS, variant="none", is_unstable=False)
TEXTS = {
    ReasonCode.NO_PAIR: (None, worded("reasons.no_pair")),
    ReasonCode.ONE_REPLICATE: (None, worded("reasons.one_replicate")),
    ReasonCode.LOST_REPLICATES: (1, worded("reasons.lost", lost="1 replicate")),
    ReasonCode.STRAY_RUNS: (2, worded("reasons.strays", strays="2 runs are outliers")),
    ReasonCode.BEFORE_FIRST_ANALYSIS: (9, worded("reasons.first_analysis", first=9)),
    ReasonCode.NO_SPREAD: (None, worded("reasons.no_spread")),
    ReasonCode.ATTAINABLE_P: (0.125, worded("reasons.attainable", least=0.12)),
    ReasonCode.MULTIPLICITY: (11, worded("reasons.multiplicity", contrasts=11)),
}


@pytest.mark.parametrize("code", [code for code in ReasonCode if code is not ReasonCode.UNSTABLE])
def test_each_code_has_a_text_with_its_number(code: ReasonCode) -> None:
    number, text = TEXTS[code]
    assert reason_clause(contrast(SMALL, Verdict.UNDECIDED, reason=Reason(code, number))) == text


def test_a_contrast_without_a_reason_has_no_text() -> None:
    assert reason_clause(contrast(SMALL, Verdict.UNDECIDED)) == ""


def test_an_unstable_contrast_names_exactly_the_unstable_variants() -> None:
    spreads = replace(FAILS, variant="se", failures=0, strays=0)
    judged = contrast(SMALL, Verdict.UNSTABLE, reason=Reason(ReasonCode.UNSTABLE), stabilities=(FAILS, STEADY, spreads))
    fails = worded("stability.failures", failures=2, n=8, variant="gc", worst=9)
    scatters = worded("stability.scatters", variant="se", spread=3, ratio="4.3", worst=9)
    assert reason_clause(judged) == f"{fails}; {scatters}"
    assert instability_clause(FAILS) == fails
    single = worded("stability.failure", n=8, variant="gc", worst=9)
    assert instability_clause(replace(FAILS, failures=1)) == single
