from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ablations.reporting.text.conclusions import conclusions
from ablations.reporting.text.selection import importance_sentences, selection_sentences
from tests.builders.analyses import search_analysis
from tests.wording import worded


def test_a_search_reports_its_selection_and_judges_confirmed_variants(tmp_path: Path) -> None:
    analysis = search_analysis(tmp_path, given_up=1, replicates=3)
    said = conclusions(analysis)
    assert analysis.selection is not None
    own = selection_sentences(analysis.selection)
    assert said[: len(own)] == own
    assert own[0] == worded("selection.tried", variants="5 variants", share=20, others="1 other")
    picks = "groups=4, gate=tanh1; groups=4, gate=sigmoid; groups=2, gate=tanh1"
    assert own[1] == worded("selection.confirmed", picks=picks)
    judged = {contrast.variant for contrast in analysis.contrasts}
    assert judged == set(picks.split("; "))
    for name in judged:
        assert any(sentence.startswith(f"{name} against none: ") for sentence in said)


def test_without_confirmed_variants_there_are_no_sentences_on_results(tmp_path: Path) -> None:
    said = conclusions(search_analysis(tmp_path, is_confirmed=False))
    assert said[-1] == worded("selection.unconfirmed")
    assert not any(" against none" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("ps", "found"),
    [
        ([0.02, 0.05, 0.5], "groups (0.90), gate (0.80) exceed"),
        ([0.02, 0.06, 0.5], "groups (0.90) exceeds"),
        ([0.06, 0.5, 0.5], "no factor exceeds"),
    ],
)
def test_factors_above_the_permutation_threshold_are_named(ps: list[float], found: str) -> None:
    rows = {"factor": ["groups", "gate", "norm"], "importance": [0.9, 0.8, 0.1], "p_family": ps}
    shares = pd.DataFrame(rows).assign(objective="top1", permutations=59)
    assert importance_sentences(shares) == [
        worded("selection.importance", objective="top-1", found=found, permutations=59, factors="3 factors")
    ]
