from __future__ import annotations

from typing import Any

import pytest
import torch

from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.network import capacities_of, knobs_of, places_of
from ablations.training.learner import build_network
from sa_core.attentions.capacity import Capacity
from sa_core.attentions.knobs import BlindKnobs, GlobalContextKnobs
from sa_core.backbones.registry import BACKBONES

HIDDEN = {"se": "fc1.weight", "cbam": "channel.fc1.weight", "gc": "mlp_add.fc1.weight"}


def network(model: str, name: str, **attention: Any) -> dict[str, Any]:
    settings = {"name": name} | ({"stages": "all", "position": "residual"} if name != "none" else {})
    return {"model": {"name": model}, "attention": settings | attention}


def test_a_plain_network_has_no_insertion_points_and_no_capacity() -> None:
    plain = network("resnet8", "none")
    assert (places_of(plain), knobs_of(plain), capacities_of(plain)) == ([], BlindKnobs(), [])


def test_there_is_a_capacity_for_each_width_with_attention() -> None:
    gc = network("resnet18", "gc", stages="2+3", reduction=4)
    assert knobs_of(gc) == GlobalContextKnobs(4)
    assert [point.path for point in places_of(gc)] == ["layer2.0.sa", "layer2.1.sa", "layer3.0.sa", "layer3.1.sa"]
    assert capacities_of(gc) == [Capacity(128, hidden_units=32), Capacity(256, hidden_units=64)]


@pytest.mark.parametrize("model", [*BACKBONES, "timm/resnet26"])
def test_the_capacity_of_rivals_equals_that_of_built_networks(model: str) -> None:
    design = make_design(compose_config(["device=cpu", "sweep=rivals", f"model={model}"]))
    for variant in design.variants:
        by_width = {capacity.channels: capacity for capacity in capacities_of(variant.network)}
        with torch.device("meta"):
            built = build_network(variant.network, 10, seed=0)
        for point in places_of(variant.network):
            module, capacity = built.get_submodule(point.path), by_width[point.channels]
            if name := HIDDEN.get(variant.name):
                assert capacity.hidden_units == module.get_parameter(name).shape[0] >= 16
            elif variant.name == "eca":
                assert capacity.kernel_size == module.get_parameter("conv.weight").shape[2]
            else:
                assert capacity.groups == module.groups
