"""Shuffle attention in one pass: the function of `sa_core.attentions.shuffle_attention`, fast.

`ShuffleAttention` chooses it by itself where it can be had (`fused="auto"`), and `create_model(..., fused_block=True)`
takes a block's last batch norm, addition and ReLU in. What cannot be had is computed by torch's operations.
"""

from __future__ import annotations

from sa_core.fused.choice import (
    FUSED,
    can_take,
    form_of,
    is_original,
    is_watched,
    prefers_eager,
    reason_against,
    reason_against_map,
    reason_against_mode,
)
from sa_core.fused.form import Form, Parameters
from sa_core.fused.operator import shuffle_attention

__all__ = [
    "FUSED",
    "Form",
    "Parameters",
    "can_take",
    "form_of",
    "is_original",
    "is_watched",
    "prefers_eager",
    "reason_against",
    "reason_against_map",
    "reason_against_mode",
    "shuffle_attention",
]
