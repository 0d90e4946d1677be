"""Which cells of a study are finished and which of its variants are shown, in a sentence each."""

from __future__ import annotations

from ablations.analysis.results import Results
from ablations.analysis.study import ENDS, MOST_SHOWN, StudyAnalysis
from ablations.common.wording import count

_NAMED = 6  # variants that the sentence names where there are too many for all


def missing_sentence(results: Results) -> str:
    """Says which cells are not finished; empty where all are."""
    pending = results.pending
    if pending.empty:
        return ""
    total = len(pending) + len(results.cells)
    by_variant = pending.groupby("variant", sort=False)["replicate"].count()
    most = by_variant if len(by_variant) <= MOST_SHOWN else by_variant.head(_NAMED)
    named = ", ".join(f"{number} of {name}" for name, number in most.items())
    if len(most) < len(by_variant):
        named += f", and of {len(by_variant) - len(most):,} other variants"
    return f"Not finished: {len(pending)} of {count(total, 'cell')} ({named})."


def state_sentence(results: Results) -> str:
    """Says whether all cells are finished, and if not, which are missing."""
    if missing := missing_sentence(results):
        return missing
    pruned = int((results.unfinished["state"] == "pruned").sum())
    given_up = f"; the search gave up on {count(pruned, 'variant')}" if pruned else ""
    return f"All {count(len(results.cells), 'cell')} are finished{given_up}."


def shown_sentence(analysis: StudyAnalysis) -> str:
    """Says which variants are shown; empty where all are."""
    if analysis.shows_all:
        return ""
    return (
        f"Of {len(analysis.summaries):,} variants the {ENDS} with the highest and the {ENDS} with the lowest top-1 are "
        "shown, and what they are compared with; the CSV files have all."
    )
