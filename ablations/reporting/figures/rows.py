"""The rows of a benchmark in its figures, and their labels."""

from __future__ import annotations

import math

import pandas as pd

SETTING = ["compile", "precision", "layout"]
SUBJECT = ["place", "batch", "name"]


def one_setting(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the measured rows of one setting: eager, fp32 and contiguous if present, otherwise the first."""
    measured = rows[rows["status"] == "measured"]
    settings = measured[SETTING].drop_duplicates().to_numpy().tolist()
    plainest = ["eager", "fp32", "contiguous"]
    taken = plainest if plainest in settings or not settings else settings[0]
    return measured[(measured[SETTING] == taken).all(axis="columns")]


def labels(rows: pd.DataFrame) -> pd.Series[str]:
    """Returns labels of networks: the attention, with backbone and batch if they differ."""
    named = rows["name"]
    if len(set(rows["place"])) > 1:
        named = rows["place"] + ", " + named
    return named + ", batch " + rows["batch"].astype(str) if len(set(rows["batch"])) > 1 else named


def percent(value: float) -> str:
    """Formats a difference in percent with two significant digits, as `+0.067 %`; 0 is `0 %`."""
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:+,.{digits}f} %" if value else "0 %"
