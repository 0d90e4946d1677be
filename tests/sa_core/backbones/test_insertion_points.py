from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from sa_core.backbones.insertion_points import POSITIONS, InsertionPoint, select_stages
from sa_core.backbones.registry import BACKBONES
from sa_core.errors import OptionError
from tests.sa_core.helpers import on_meta
from tests.wording import refusal


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
    ("backbone", "stem"), [(name, stem) for name, backbone in BACKBONES.items() for stem in backbone.stems or (None,)]
)
def test_every_insertion_point_has_the_declared_number_of_channels(
    backbone: str, stem: str | None, position: str
) -> None:
    model = on_meta(name=backbone, position=position, stem=stem)
    found: list[tuple[str, int]] = []

    def record(path: str, _module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert len(inputs[0].shape) == 4
        found.append((path, inputs[0].shape[1]))

    for path, module in model.named_modules():
        if path.endswith(".sa"):
            module.register_forward_pre_hook(partial(record, path))
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 10)
    assert found == [(point.path, point.channels) for point in BACKBONES[backbone].insertion_points(position)]


@pytest.mark.parametrize(
    ("stages", "selected"),
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
def test_stages_are_selected_by_word_or_number(stages: str, selected: set[int]) -> None:
    assert select_stages(stages, 3, "resnet20") == selected


@pytest.mark.parametrize("stages", ["", "0", "4", "1+4", "two", "2+", "+2", "-1", "1,2", "all+1", "1.0", "²"])
def test_unknown_stages_raise_an_error_with_the_valid_ones(stages: str) -> None:
    with pytest.raises(
        OptionError, match=refusal("", "backbones.no_stages", model="resnet20", last=3, then="2+3", valid="all")
    ):
        select_stages(stages, 3, "resnet20")


def test_selected_points_are_those_of_the_stages_in_network_order() -> None:
    backbone = BACKBONES["resnet8"]
    assert backbone.selected_points("pre", "3+1") == [
        InsertionPoint(1, "layer1.0.sa", 16),
        InsertionPoint(3, "layer3.0.sa", 32),
    ]
    assert backbone.selected_points("post", "all") == backbone.insertion_points("post")
    assert BACKBONES["resnet50"].selected_points("residual", "last")[0] == InsertionPoint(4, "layer4.0.sa", 2048)


def test_an_unknown_position_raises_an_error_with_the_valid_ones() -> None:
    with pytest.raises(
        OptionError, match=refusal("position=identity", "options.unknown", valid="residual, pre, post, shortcut")
    ):
        BACKBONES["resnet8"].insertion_points("identity")
