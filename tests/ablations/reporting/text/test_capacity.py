from __future__ import annotations

import pytest

from ablations.reporting.text.capacity import capacity_clause
from sa_core.attentions.capacity import Capacity, capacity_on
from sa_core.attentions.declaration import Knobs
from sa_core.attentions.knobs import (
    EfficientChannelKnobs,
    GlobalContextKnobs,
    ShuffleAttentionKnobs,
    SqueezeExcitationKnobs,
)
from tests.wording import worded


@pytest.mark.parametrize(
    ("knobs", "widths", "clause"),
    [
        (GlobalContextKnobs(1), (16, 32, 64), worded("capacity.hidden", units="16, 32, 64")),
        (SqueezeExcitationKnobs(16), (16, 32), worded("capacity.hidden", units="8, 8")),
        (GlobalContextKnobs(16), (16,), worded("capacity.hidden_unit")),
        (EfficientChannelKnobs(), (64, 128), worded("capacity.kernels", sizes="3, 5")),
        (ShuffleAttentionKnobs(4), (16, 32, 64), worded("capacity.groups", number=4, channels="4, 8, 16")),
        (ShuffleAttentionKnobs(1), (16,), worded("capacity.group", channels="16")),
        (ShuffleAttentionKnobs(64, "clamp"), (16, 64), worded("capacity.clamped", one="8", other="32", channels=2)),
        (Knobs(), (16, 32), "–"),
    ],
)
def test_capacity_is_formatted_with_its_kind_at_each_width(knobs: Knobs, widths: tuple[int, ...], clause: str) -> None:
    assert capacity_clause([capacity_on(knobs, width) for width in widths]) == clause


def test_without_attention_the_capacity_is_a_dash() -> None:
    assert capacity_clause([]) == capacity_clause([Capacity(16)]) == "–"
