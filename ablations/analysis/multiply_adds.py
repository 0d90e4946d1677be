"""The multiply-adds of the networks that a study compares."""

from __future__ import annotations

import torch

from ablations.common.settings import Settings
from ablations.common.sizes import SMALL_SIDE
from ablations.measure.complexity import count_operations
from ablations.training.learner import build_network


def count_multiply_adds(network: Settings, classes: int, side: int) -> float:
    """Counts the multiply-adds of an image of `side` x `side` pixels, as papers count them.

    With large images nothing is computed. With small ones computing is quicker than torch's emulation, which is written
    in Python and imports the compiler.
    """
    with torch.device("cpu" if side <= SMALL_SIDE else "meta"):
        model = build_network(network, classes, seed=0, fused="off").eval()
        return count_operations(model, torch.empty(1, 3, side, side)).multiply_adds
