from __future__ import annotations

import pytest
import torch
from torch import nn

from sa_core import ShuffleAttention, create_model


@pytest.mark.parametrize(
    ("name", "parameters"),
    # He et al. 2015, table 6, gives 0.27 M, 0.46 M and 0.85 M; to the digit, these are the counts of the
    # implementations that follow it (shortcuts of option A, ten classes).
    [("resnet20", 269_722), ("resnet32", 464_154), ("resnet56", 853_018)],
)
def test_cifar_resnets_have_the_published_size(name: str, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in create_model(name).parameters()) == parameters


def test_attention_stands_in_every_block_with_the_stage_channels() -> None:
    model = create_model("resnet20", attention="sa", groups=8)
    found = {name: module.channels for name, module in model.named_modules() if isinstance(module, ShuffleAttention)}
    expected = {f"layer{stage}.{block}.sa": 8 * 2**stage for stage in (1, 2, 3) for block in range(3)}
    assert found == expected


def test_attention_is_applied_after_the_last_norm_and_before_the_addition() -> None:
    model = create_model("resnet8", attention="sa", groups=2, seed=0).eval()
    block = model.get_submodule("layer1.0")
    x = torch.randn(2, 16, 8, 8)
    residual = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))  # type: ignore[operator]
    torch.testing.assert_close(block(x), torch.relu(block.sa(residual) + x))  # type: ignore[operator]


def test_with_one_seed_all_variants_start_from_the_same_backbone_weights() -> None:
    plain = create_model("resnet20", seed=3).state_dict()
    for knobs in ({"groups": 1}, {"groups": 8}, {"groups": 4, "branches": "spatial", "norm": "batch"}):
        variant = create_model("resnet20", attention="sa", seed=3, **knobs).state_dict()
        assert all(torch.equal(variant[name], value) for name, value in plain.items()), knobs
    other = create_model("resnet20", seed=4).state_dict()
    assert not torch.equal(other["conv1.weight"], plain["conv1.weight"])


def test_building_a_network_moves_the_global_generator_the_same_for_every_variant() -> None:
    states = []
    for knobs in ({}, {"attention": "sa", "groups": 4}):
        torch.manual_seed(0)
        create_model("resnet8", **knobs)  # type: ignore[arg-type]
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


def test_a_plain_network_has_the_names_of_torchvision() -> None:
    names = set(create_model("resnet8").state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer2.0.conv1.weight", "layer3.0.bn2.bias", "fc.bias"} <= names
    assert not any(".sa." in name for name in names)


def test_an_image_becomes_as_many_logits_as_there_are_classes() -> None:
    model = create_model("resnet8", attention="sa", groups=8, num_classes=7)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert model(torch.randn(2, 3, 33, 47)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet21"}, "there is no model 'resnet21'; valid: resnet8, resnet20"),
        ({"name": "resnet20", "attention": "sb"}, "there is no attention 'sb'; valid: none, sa"),
        ({"name": "resnet20", "attention": "sa", "groups": 16}, "stage layer1: groups=16 does not split 16 channels"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(**arguments)  # type: ignore[arg-type]


def test_an_unknown_knob_is_refused() -> None:
    with pytest.raises(TypeError, match="group"):
        create_model("resnet8", attention="sa", group=2)


def test_shortcuts_have_no_parameters_and_keep_the_first_channels() -> None:
    block = create_model("resnet8", seed=0).eval().get_submodule("layer2.0")
    nn.init.zeros_(block.bn2.weight)  # type: ignore[arg-type, union-attr]
    x = torch.randn(1, 16, 8, 8).abs()
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()
