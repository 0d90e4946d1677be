from __future__ import annotations

import inspect

import pytest
import timm
import torch

from sa_core import ShuffleAttention, create_model
from sa_core.backbones.insertion_points import InsertionPoint
from sa_core.backbones.registry import find_backbone
from sa_core.backbones.timm_models import EmptyInsertionPoint, find_timm_backbone
from sa_core.errors import OptionError
from tests.sa_core.helpers import count, noise
from tests.wording import refusal

# Since timm 1.0.23 (of those tried) the blocks of its vision transformers take attention as well.
TOKENS_HAVE_A_PLACE = "attn_layer" in inspect.signature(timm.models.VisionTransformer).parameters


def test_timm_builds_its_models_with_shuffle_attention() -> None:
    model = timm.create_model("resnet50", num_classes=1000, block_args={"attn_layer": ShuffleAttention})
    assert count(model) == 25_557_740
    assert sum(isinstance(module, ShuffleAttention) for module in model.modules()) == 16
    out = model(noise(2, 3, 64, 64))
    assert out.shape == (2, 1000)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "groups", "channels"),
    [
        ("timm/resnet26", 64, [256] * 2 + [512] * 2 + [1024] * 2 + [2048] * 2),
        ("timm/gernet_s", 8, [48] * 4 + [96] * 7 + [1680] * 2 + [768]),
    ],
)
def test_a_model_of_timm_has_attention_at_every_insertion_point(name: str, groups: int, channels: list[int]) -> None:
    model = create_model(name, attention="sa", groups=groups, num_classes=7)
    assert [point.channels for point in find_backbone(name).insertion_points()] == channels
    filled = [(path, module.channels) for path, module in model.named_modules() if isinstance(module, ShuffleAttention)]
    assert sorted(filled) == sorted((point.path, point.channels) for point in find_backbone(name).insertion_points())
    assert not any(
        isinstance(module, EmptyInsertionPoint) for path, module in model.named_modules() if path in dict(filled)
    )
    out = model(noise(2, 3, 64, 64))
    assert out.shape == (2, 7)
    out.square().sum().backward()
    assert [path for path, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ["resnet26", "gernet_s"])
def test_a_plain_model_of_timm_equals_the_one_that_timm_builds(name: str) -> None:
    theirs = timm.create_model(name, num_classes=10).eval()
    ours = create_model(f"timm/{name}").eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = noise(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


def test_stages_of_a_model_of_timm_are_numbered_from_one() -> None:
    insertion_points = find_backbone("timm/resnet26").insertion_points()
    assert insertion_points[0] == InsertionPoint(1, "layer1.0.se", 256)
    assert [point.stage for point in insertion_points] == [1, 1, 2, 2, 3, 3, 4, 4]
    model = create_model("timm/resnet26", attention="sa", stages="2+4")
    filled = {path for path, module in model.named_modules() if isinstance(module, ShuffleAttention)}
    assert filled == {"layer2.0.se", "layer2.1.se", "layer4.0.se", "layer4.1.se"}
    with pytest.raises(OptionError, match=refusal("stages=5", "backbones.no_stages", model="timm/resnet26", last=4)):
        create_model("timm/resnet26", stages="5")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/vit_tiny_patch16_224", "backbones.tokens" if TOKENS_HAVE_A_PLACE else "backbones.no_place"),
        ("timm/convnext_tiny", "backbones.no_place"),
        ("timm/cspresnet50", "backbones.no_place"),
        ("timm/mobilenetv3_small_050", "backbones.no_place"),
    ],
)
def test_a_model_without_attn_layer_raises_an_error_with_supported_models(name: str, reason: str) -> None:
    with pytest.raises(OptionError, match=refusal(f"model={name}", reason, then="timm/resnet26, ")):
        create_model(name, attention="sa", groups=1)


@pytest.mark.parametrize("name", ["resnet26", "resnet50", "resnext50_32x4d", "res2net50_26w_4s", "gernet_s"])
def test_the_models_named_in_the_error_are_supported(name: str) -> None:
    assert find_timm_backbone(f"timm/{name}").points


def test_an_unknown_model_of_timm_raises_an_error_with_similar_names() -> None:
    with pytest.raises(OptionError, match=refusal("model=timm/resnet51", "backbones.no_model", then="timm/resnet50")):
        create_model("timm/resnet51")
    with pytest.raises(OptionError, match=refusal("model=timm/", "backbones.no_model")):
        create_model("timm/")


@pytest.mark.parametrize("position", ["pre", "post", "shortcut", "inside"])
def test_a_model_of_timm_supports_only_the_residual_position(position: str) -> None:
    with pytest.raises(
        OptionError, match=refusal(f"position={position}", "backbones.not_in", model="timm/resnet26", valid="residual")
    ):
        create_model("timm/resnet26", position=position)


def test_a_name_may_contain_the_tag_of_its_weights() -> None:
    assert find_timm_backbone("timm/resnet26.bt_in1k").points == find_timm_backbone("timm/resnet26").points


def test_an_error_names_the_insertion_point_that_does_not_fit() -> None:
    with pytest.raises(
        OptionError,
        match=refusal("groups=64", "knobs.not_split", channels=48, then="(at stages.0.0.attn_last of timm/gernet_s"),
    ):
        create_model("timm/gernet_s", attention="sa")


def test_finding_a_model_does_not_change_the_global_generator() -> None:
    find_timm_backbone.cache_clear()
    before = torch.random.get_rng_state()
    find_timm_backbone("timm/resnet26")
    assert torch.equal(torch.random.get_rng_state(), before)
