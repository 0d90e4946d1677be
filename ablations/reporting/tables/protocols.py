"""The table of contrasts under several protocols, one column per protocol, and the agreement of their verdicts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from ablations.analysis.multiverse import agreements
from ablations.common.metrics import Metric
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.multiverse import Noun, agreement_word, by_protocol, margin_text
from ablations.reporting.text.numbers import difference_with_interval
from ablations.reporting.text.verdicts import marked
from ablations.stats import Estimate, Verdict
from ablations.stats.significance import FLIPPED


def protocols_table(
    frame: pd.DataFrame, margins: Mapping[str, float], metric: Metric, noun: Noun = ("protocol", "protocols", "under")
) -> Section:
    """Returns one row per contrast: difference and verdict under each protocol, then the agreement of verdicts.

    Args:
        frame: one row per contrast and protocol: `protocol`, `variant`, `baseline`, `n`, `mean`, `low`, `high` (NaN if
            missing), `verdict`, and optionally `assumes_normal`.
        margins: the equivalence margin of each protocol.
        metric: the judged metric.
        noun: the unit that contrasts are compared between.
    """
    protocols, found = list(dict.fromkeys(frame["protocol"])), agreements(frame)
    several = len(set(frame["baseline"])) > 1
    cells = {(row["protocol"], row["variant"], row["baseline"]): _cell(row, metric) for row in frame.to_dict("records")}
    rows = [
        [f"{variant} against {baseline}" if several else variant]
        + [cells.get((protocol, variant, baseline), "–") for protocol in protocols]
        + ([agreement_word(agrees, noun)] if len(protocols) > 1 else [])
        for (variant, baseline), agrees in found.items()
    ]
    baseline = "its baseline" if several else frame["baseline"].iloc[0]
    note = (
        f"Difference in {metric.label.lower()} to {baseline} ({metric.difference_unit or 'no unit'}) [95 % CI, not "
        "corrected], and its verdict, corrected for all contrasts of all "
        f"{noun[1]}. "
        f"n = {sizes_text(frame)}. Equivalence margin: {margin_text(margins, metric)}."
    )
    if len(protocols) > 1:
        note += (
            f" Agree: the same decided verdict {noun[2]} all {noun[1]}; compatible: decided verdicts are the "
            "same, others are undecided; contradict: decided verdicts differ."
        )
    if "assumes_normal" in frame and any("†" in cell for cell in cells.values()):
        note += f" † Assumes normal differences: fewer than {FLIPPED} replicates."
    headers = ["contrast", *protocols, *(["verdicts"] if len(protocols) > 1 else [])]
    return Section(f"Verdicts by {noun[0]}", note, tuple(headers), rows)


def _cell(row: Mapping[Hashable, Any], metric: Metric) -> str:
    if not row["n"]:
        return "no pair"
    difference = difference_with_interval(Estimate(row["n"], row["mean"], row["low"], row["high"]), metric)
    return f"{difference} {marked(Verdict(row['verdict']), bool(row.get('assumes_normal', False)))}"


def sizes_text(frame: pd.DataFrame) -> str:
    """Formats the replicates of all contrasts, by protocol if they differ: `8`, `3 to 8`, `8 (quick), 3 (short)`."""
    texts = {}
    for protocol, sizes in frame.groupby("protocol", sort=False)["n"]:
        least, most = int(sizes.min()), int(sizes.max())
        texts[str(protocol)] = str(least) if least == most else f"{least} to {most}"
    return by_protocol(texts)
