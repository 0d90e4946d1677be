from __future__ import annotations

import pytest

from sa_core.backbones.insertion_points import POSITIONS, STEMS
from sa_core.backbones.registry import BACKBONES, find_backbone
from sa_core.errors import OptionError
from tests.wording import refusal


@pytest.mark.parametrize(
    ("backbone", "blocks"),
    [
        ("resnet8", (1, 1, 1)),
        ("resnet20", (3, 3, 3)),
        ("resnet32", (5, 5, 5)),
        ("resnet56", (9, 9, 9)),
        ("resnet18", (2, 2, 2, 2)),
        ("resnet34", (3, 4, 6, 3)),
        ("resnet50", (3, 4, 6, 3)),
        ("resnet101", (3, 4, 23, 3)),
        ("shufflenet_v2_x0_5", (4, 8, 4)),
        ("shufflenet_v2_x1_0", (4, 8, 4)),
    ],
)
def test_a_backbone_has_one_insertion_point_per_block(backbone: str, blocks: tuple[int, ...]) -> None:
    for position in POSITIONS:
        insertion_points = BACKBONES[backbone].insertion_points(position)
        assert len({point.path for point in insertion_points}) == sum(blocks)
        assert [point.stage for point in insertion_points] == [
            stage for stage, count in enumerate(blocks, start=1) for _ in range(count)
        ]


@pytest.mark.parametrize(
    ("backbone", "position", "channels"),
    [
        ("resnet20", "residual", [16] * 3 + [32] * 3 + [64] * 3),
        ("resnet20", "pre", [16] * 3 + [16, 32, 32] + [32, 64, 64]),
        ("resnet18", "pre", [64, 64, 64, 128, 128, 256, 256, 512]),
        ("resnet50", "residual", [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3),
        ("resnet50", "pre", [64, 256, 256] + [256] + [512] * 3 + [512] + [1024] * 5 + [1024, 2048, 2048]),
        ("shufflenet_v2_x1_0", "residual", [58] * 4 + [116] * 8 + [232] * 4),
        ("shufflenet_v2_x1_0", "pre", [24] + [58] * 3 + [116] * 8 + [232] * 4),
        ("shufflenet_v2_x0_5", "post", [48] * 4 + [96] * 8 + [192] * 4),
    ],
)
def test_insertion_points_have_the_widths_of_the_papers(backbone: str, position: str, channels: list[int]) -> None:
    assert [point.channels for point in find_backbone(backbone).insertion_points(position)] == channels


def test_backbones_are_registered_under_their_names() -> None:
    assert all(backbone.name == name for name, backbone in BACKBONES.items())
    assert {name for name, backbone in BACKBONES.items() if backbone.stems == STEMS} == {
        "resnet18", "resnet34", "resnet50", "resnet101", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    }  # fmt: skip


def test_an_unknown_backbone_raises_an_error_with_the_valid_ones() -> None:
    with pytest.raises(
        OptionError,
        match=refusal("model=resnet21", "backbones.unknown", valid="resnet8, resnet20, ") + ".*, timm/<name>",
    ):
        find_backbone("resnet21")
