"""A figure of a study before drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.results import Results


@dataclass(frozen=True)
class Sketch:
    """A figure of a study: its frame, its drawing function, and its explanation.

    `n` describes the replicates, if not those of each variant; `asks` is whether the caption has the study's question;
    `shown` describes the shown rows, None for the usual variants; `results` are its results, if not the study's;
    `unread` has unreadable files, which are left out, with the reasons.
    """

    frame: pd.DataFrame
    draw: Callable[[str], Figure]
    key: str = ""
    n: str = ""
    asks: bool = True
    shown: str | None = None
    results: Results | None = None
    unread: Mapping[str, str] = field(default_factory=dict)
