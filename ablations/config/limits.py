"""The options of what ends a cell before its time."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.config.option import option


@dataclass
class LimitsConfig:
    """What ends a cell before its time."""

    seconds: float = option(
        0.0, "Seconds that a cell may take, after which it counts as failed; 0 is no limit.", minimum=0.0, maximum=1e9
    )
