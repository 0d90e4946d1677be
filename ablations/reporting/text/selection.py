"""The selection of a search and the importance of factors, as text."""

from __future__ import annotations

import pandas as pd

from ablations.analysis.importances import ALPHA
from ablations.analysis.selection import Selection
from ablations.common.metrics import METRICS
from ablations.common.wording import count


def selection_sentences(selection: Selection) -> list[str]:
    """Returns sentences on the evaluated and selected variants, and on important factors."""
    frame, design = selection.tradeoffs, selection.design
    given_up = f", and {count(selection.given_up, 'other')} were pruned" if selection.given_up else ""
    failed = int(selection.results.unfinished["state"].isin(["failed", "diverged"]).sum())
    given_up += f"; {count(failed, 'variant')} failed or diverged" if failed else ""
    picks = [str(name) for name in frame[frame["rank"] > 0].sort_values("rank")["variant"]]
    start = (
        f"Selection: the search evaluated {count(selection.picked, 'variant')} once each on the validation images "
        f"({100 * design.validation:g} % of the training images){given_up}."
    )
    if not picks:
        return [start]
    selected = (
        f"Confirmed with new replicates on the test images: {'; '.join(picks)}. No test image was used for selection, "
        "so the differences and verdicts below are not biased by it."
    )
    return [start, selected, *importance_sentences(selection.importances)]


def importance_sentences(shares: pd.DataFrame) -> list[str]:
    """Returns a sentence for each objective with the factors that exceed the permutation threshold."""
    sentences = []
    for objective, rows in shares.groupby("objective", sort=False):
        above = [
            f"{row['factor']} ({row['importance']:.2f})" for row in rows.to_dict("records") if row["p_family"] <= ALPHA
        ]
        found = f"{', '.join(above)} {'exceeds' if len(above) == 1 else 'exceed'}" if above else "no factor exceeds"
        label = METRICS[str(objective)].label
        sentences.append(
            f"Importance for {label[0].lower()}{label[1:]}: {found} the permutation threshold "
            f"({rows['permutations'].iloc[0]} permutations, 5 % level for {count(len(rows), 'factor')} together)."
        )
    return sentences
