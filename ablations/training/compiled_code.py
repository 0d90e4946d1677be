"""Reuse of torch.compile's code between the cells of a process.

Compiling takes longer than training a small network, so all replicates of a variant use the code of the first one. The
number of networks with kept code is limited, and code that holds the memory of earlier networks is discarded.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch

from ablations.config import OWN_GRAPHS, TrainConfig

MOST_KEPT = 32  # maximum number of networks whose code is kept

kept: set[str] = set()


def discard_code(network: dict[str, Any], recipe: TrainConfig) -> None:
    """Discards all compiled code if a new network would exceed `MOST_KEPT`, or if the code has CUDA graphs.

    The CUDA graphs of `reduce-overhead` and `max-autotune` are captured with the weights of one network and hold their
    memory; torch has no public function that discards the graphs but keeps the code.
    """
    compiled = repr((sorted(network.items()), astuple(recipe)))
    if recipe.compile in OWN_GRAPHS or (compiled not in kept and len(kept) == MOST_KEPT):
        torch.compiler.reset()
        kept.clear()
    kept.add(compiled)
