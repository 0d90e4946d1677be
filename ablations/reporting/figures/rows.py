"""Which rows of a benchmark its figures show, and how they name them."""

from __future__ import annotations

import math

import pandas as pd

SETTING = ["compile", "precision", "layout"]
SUBJECT = ["place", "batch", "name"]


def one_setting(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the measured rows of one setting: eager, fp32 and contiguous where that occurs, else the first."""
    measured = rows[rows["status"] == "measured"]
    settings = measured[SETTING].drop_duplicates().to_numpy().tolist()
    plainest = ["eager", "fp32", "contiguous"]
    taken = plainest if plainest in settings or not settings else settings[0]
    return measured[(measured[SETTING] == taken).all(axis="columns")]


def labels(rows: pd.DataFrame) -> pd.Series[str]:
    """Names networks by their attention; and by backbone and batch, where these differ."""
    named = rows["name"]
    if len(set(rows["place"])) > 1:
        named = rows["place"] + ", " + named
    return named + ", batch " + rows["batch"].astype(str) if len(set(rows["batch"])) > 1 else named


def percent(value: float) -> str:
    """Writes a difference in percent with two digits that mean something, as `+0.067 %`; none is `0 %`."""
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:+,.{digits}f} %" if value else "0 %"
