"""Which code of torch.compile a process keeps from cell to cell.

Compiling takes longer than training a small network, so replicates of a variant use the code of the first one. What is
kept is limited in number, and not kept at all where it holds the memory of earlier networks.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch

from ablations.config import OWN_GRAPHS, TrainConfig

MOST_KEPT = 32  # networks whose code is kept

kept: set[str] = set()


def discard_code(network: dict[str, Any], recipe: TrainConfig) -> None:
    """Discards compiled code of earlier cells, unless it is of this network, or that of few networks.

    CUDA graphs of `reduce-overhead` and `max-autotune` are captured with the weights of one network, whose memory they
    hold; torch has no public function that discards them and keeps the code.
    """
    compiled = repr((sorted(network.items()), astuple(recipe)))
    if recipe.compile in OWN_GRAPHS or (compiled not in kept and len(kept) == MOST_KEPT):
        torch.compiler.reset()
        kept.clear()
    kept.add(compiled)
