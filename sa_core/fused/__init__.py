"""Kernels that compute shuffle attention (`sa_core.attentions.shuffle_attention`) in one pass over the feature map.

`ShuffleAttention` uses them automatically where supported (`fused="auto"`), otherwise torch's operations.
`create_model(..., fused_block=True)` also fuses the last batch norm, addition and ReLU of a block.
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
