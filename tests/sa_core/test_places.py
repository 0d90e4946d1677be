from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from sa_core.errors import OptionError
from sa_core.places import BACKBONES, POSITIONS, STEMS, Place, find_backbone, select_stages
from tests.sa_core.helpers import on_meta


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
    ("backbone", "stem"), [(name, stem) for name, backbone in BACKBONES.items() for stem in backbone.stems or (None,)]
)
def test_every_place_gets_as_many_channels_as_it_says(backbone: str, stem: str | None, position: str) -> None:
    model = on_meta(name=backbone, position=position, stem=stem)
    found: list[tuple[str, int]] = []

    def note(path: str, _slot: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert len(inputs[0].shape) == 4
        found.append((path, inputs[0].shape[1]))

    for path, module in model.named_modules():
        if path.endswith(".sa"):
            module.register_forward_pre_hook(partial(note, path))
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)
    assert found == [(place.path, place.channels) for place in BACKBONES[backbone].places(position)]


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
def test_a_backbone_has_a_place_for_every_block_of_its_stages(backbone: str, blocks: tuple[int, ...]) -> None:
    for position in POSITIONS:
        places = BACKBONES[backbone].places(position)
        assert len({place.path for place in places}) == sum(blocks)
        assert [place.stage for place in places] == [
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
def test_places_are_as_wide_as_the_papers_have_them(backbone: str, position: str, channels: list[int]) -> None:
    assert [place.channels for place in find_backbone(backbone).places(position)] == channels


def test_backbones_have_their_names() -> None:
    assert all(backbone.name == name for name, backbone in BACKBONES.items())
    assert {name for name, backbone in BACKBONES.items() if backbone.stems == STEMS} == {
        "resnet18", "resnet34", "resnet50", "resnet101", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("stages", "chosen"),
    [
        ("all", {1, 2, 3}),
        ("first", {1}),
        ("last", {3}),
        ("2", {2}),
        ("2+3", {2, 3}),
        ("3+1", {1, 3}),
        ("2+2", {2}),
    ],
)
def test_stages_are_named_by_word_or_number(stages: str, chosen: set[int]) -> None:
    assert select_stages(stages, 3, "resnet20") == chosen


@pytest.mark.parametrize("stages", ["", "0", "4", "1+4", "two", "2+", "+2", "-1", "1,2", "all+1", "1.0", "²"])
def test_stages_that_are_not_there_are_refused_with_those_that_are(stages: str) -> None:
    with pytest.raises(OptionError, match=r"names no stages of resnet20, which has 1 to 3; as 2\+3; valid: all, "):
        select_stages(stages, 3, "resnet20")


def test_selected_places_are_those_of_the_stages_in_the_order_of_the_network() -> None:
    backbone = BACKBONES["resnet8"]
    assert backbone.selected_places("pre", "3+1") == [Place(1, "layer1.0.sa", 16), Place(3, "layer3.0.sa", 32)]
    assert backbone.selected_places("post", "all") == backbone.places("post")
    assert BACKBONES["resnet50"].selected_places("residual", "last")[0] == Place(4, "layer4.0.sa", 2048)


def test_a_position_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(OptionError, match="position=identity is not known; valid: residual, pre, post, shortcut"):
        BACKBONES["resnet8"].places("identity")


def test_a_backbone_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(OptionError, match=r"model=resnet21 is no backbone; valid: resnet8, resnet20, .*, timm/<name>"):
        find_backbone("resnet21")
