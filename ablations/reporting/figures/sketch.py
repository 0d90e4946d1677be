"""A figure that a study has, before it is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.results import Results


@dataclass(frozen=True)
class Sketch:
    """A figure that a study has: the frame that it shows, what draws it, and how to read it.

    `n` is how many replicates it shows, where that is not what the study has of each variant; `asks` is whether the
    study's question stands in the caption; `shown` says which of very many rows it has, None being the usual variants;
    `results` are those that it is of, where these are not the study's; `unread` has the files that cannot be read and
    are left out, with the reasons.
    """

    frame: pd.DataFrame
    draw: Callable[[str], Figure]
    key: str = ""
    n: str = ""
    asks: bool = True
    shown: str | None = None
    results: Results | None = None
    unread: Mapping[str, str] = field(default_factory=dict)
