"""SA-ResNets by name in sa_core, timm and torch.hub: state dicts, feature maps and classifier methods."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import sa_core
import sa_core.timm
from sa_core import FeatureMaps, ShuffleAttention, create_model
from sa_core.backbones.sa_resnet import SA_RESNETS
from sa_core.errors import OptionError
from tests.conftest import ROOT
from tests.sa_core.helpers import noise, randomised
from tests.wording import refusal

DEPTHS = {"sa_resnet50": (3, 4, 6, 3), "sa_resnet101": (3, 4, 23, 3)}
WIDTHS = (64, 256, 512, 1024, 2048)


def norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var"))
    yield f"{name}.num_batches_tracked", ()


def official(depths: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the official code: equal in classifier (models/) and detection backbone (mmdetection/)."""
    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm("bn1", 64)
    for stage, blocks in enumerate(depths, start=1):
        inner, out = 32 * 2**stage, WIDTHS[stage]
        for block in range(blocks):
            path, before = f"layer{stage}.{block}", out if block else WIDTHS[stage - 1]
            shapes = ((inner, before, 1, 1), (inner, inner, 3, 3), (out, inner, 1, 1))
            for number, shape in enumerate(shapes, start=1):
                yield f"{path}.conv{number}.weight", shape
                yield from norm(f"{path}.bn{number}", shape[0])
            c = out // (2 * 64)
            yield from ((f"{path}.sa.{name}", (1, c, 1, 1)) for name in ("cweight", "cbias", "sweight", "sbias"))
            yield from ((f"{path}.sa.gn.{name}", (c,)) for name in ("weight", "bias"))
            if not block:
                yield f"{path}.downsample.0.weight", (out, before, 1, 1)
                yield from norm(f"{path}.downsample.1", out)
    yield from (("fc.weight", (1000, 2048)), ("fc.bias", (1000,)))


def official_state(name: str) -> dict[str, Tensor]:
    """A state dict of the official code with random values."""
    random = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=random) * 0.1 if shape else torch.tensor(7)
        for name, shape in official(DEPTHS[name])
    }


def small(name: str = "sa_resnet18", **options: Any) -> nn.Module:
    """A network with gates that are not constant."""
    model: nn.Module = SA_RESNETS[name](num_classes=7, seed=0, **options)
    for module in model.modules():
        if isinstance(module, ShuffleAttention):
            randomised(module)
    return model.eval()


@pytest.mark.parametrize("name", DEPTHS)
def test_names_and_shapes_are_the_official_ones(name: str) -> None:
    with torch.device("meta"):
        state = SA_RESNETS[name]().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == dict(official(DEPTHS[name]))


def test_an_official_detector_state_dict_loads_into_feature_maps_and_classifier() -> None:
    state = official_state("sa_resnet50")
    whole, maps = sa_core.sa_resnet50(), sa_core.sa_resnet50(features_only=True, out_indices=(1, 2, 3, 4))
    for model in (whole, maps):
        model.load_state_dict(state, strict=True)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert set(state) - set(maps.state_dict()) == {"fc.weight", "fc.bias"}
    # As `backbone` of a detector, whose state dict has a prefix; unknown names still raise an error.
    detector = nn.ModuleDict({"backbone": maps})
    detector.load_state_dict({f"backbone.{name}": value for name, value in state.items()}, strict=True)
    with pytest.raises(RuntimeError, match=r"layer5\.weight"):
        maps.load_state_dict({**state, "layer5.weight": torch.ones(1)}, strict=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:FutureWarning")
def test_feature_maps_are_those_of_the_stages_and_later_stages_are_removed() -> None:
    model, maps = small(), small(features_only=True)
    x = noise(2, 3, 64, 64)
    found = maps(x)
    assert [tuple(feature_map.shape[1:]) for feature_map in found] == [
        (64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2),
    ]  # fmt: skip
    assert torch.equal(found[4], model.forward_features(x))
    subset = small(features_only=True, out_indices=(3, 1))
    assert all(torch.equal(*pair) for pair in zip(subset(x), (found[3], found[1]), strict=True))
    assert not any(name.startswith(("fc", "layer4")) for name in subset.state_dict())
    sum(feature_map.sum() for feature_map in subset(x)).backward()
    assert all(parameter.grad is not None for parameter in subset.parameters())
    subset.load_state_dict(model.state_dict(), strict=True)
    twin = pickle.loads(pickle.dumps(subset))
    twin.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(twin(x)[0], subset(x)[0])
    scripted = torch.jit.script(subset)
    torch.testing.assert_close(scripted(x), subset(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "groups"), [("sa_resnet18", 16), ("sa_resnet34", 16), ("sa_resnet50", 64)])
def test_groups_depend_on_the_width_of_the_network(name: str, groups: int) -> None:
    with torch.device("meta"):
        models = [SA_RESNETS[name](), create_model(name.removeprefix("sa_"), attention="sa", groups="auto")]
        custom = SA_RESNETS[name](groups=8, gate="tanh1")
    for model in models:
        assert {part.groups for part in model.modules() if isinstance(part, ShuffleAttention)} == {groups}
    assert {part.groups for part in custom.modules() if isinstance(part, ShuffleAttention)} == {8}


@pytest.mark.parametrize("attention", ["sa", "sge", "se_matched"])
def test_automatic_groups_are_those_of_the_default_insertion_points_or_fewer(attention: str) -> None:
    model = create_model("shufflenet_v2_x0_5", attention=attention, groups="auto", position="pre")
    groups = {path: part.groups for path, part in model.named_modules() if path.endswith(".sa")}
    default = create_model("shufflenet_v2_x0_5", attention=attention, groups="auto")
    default_groups = {part.groups for path, part in default.named_modules() if path.endswith(".sa")}
    assert len(default_groups) == 1
    assert max(groups.values()) == max(default_groups)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("resnet8", (64, 4, 4)),
        ("resnet18", (512, 1, 1)),
        ("resnet50", (2048, 1, 1)),
        ("shufflenet_v2_x0_5", (1024, 1, 1)),
        ("timm/resnet26", (2048, 1, 1)),
    ],
)
def test_a_network_has_timms_methods_for_features_and_head(name: str, features: tuple[int, ...]) -> None:
    model: Any = create_model(name, attention="sa", groups="auto", num_classes=5, in_chans=2).eval()
    x = noise(2, 2, 16, 16)
    assert model.forward_features(x).shape == (2, *features)
    assert torch.equal(model.forward_head(model.forward_features(x)), model(x))
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    assert pooled.shape == (2, model.num_features) == (2, features[0])
    assert model(x).shape == (2, model.num_classes) == (2, 5)
    assert torch.equal(model.get_classifier()(pooled), model(x))
    backbone_state = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    model.reset_classifier(3, "avg")
    assert model(x).shape == (2, model.num_classes) == (2, 3)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in backbone_state.items())
    model.reset_classifier(0)
    assert torch.equal(model(x), pooled)
    headless: Any = create_model(name, num_classes=0, in_chans=2).eval()
    assert headless(x).shape == (2, features[0])


def test_a_head_with_another_pooling_raises_an_error() -> None:
    model: Any = create_model("resnet8")
    with pytest.raises(OptionError, match=refusal("global_pool=max", "fused.unavailable", valid="avg")):
        model.reset_classifier(3, "max")


@pytest.mark.parametrize(
    ("options", "subject", "reason"),
    [
        ({"pretrained": True}, "pretrained=True", "backbones.no_weights"),
        ({"out_indices": (1, 2)}, "out_indices=(1, 2)", "backbones.no_maps"),
        ({"features_only": True, "out_indices": (5,)}, "out_indices=(5,)", "backbones.no_map"),
        ({"features_only": True, "out_indices": ()}, "out_indices=()", "backbones.no_map"),
        ({"groups": 5}, "groups=5", "knobs.not_split"),
    ],
)
def test_invalid_arguments_raise_an_error(options: dict[str, Any], subject: str, reason: str) -> None:
    with torch.device("meta"), pytest.raises(OptionError, match=refusal(subject, reason, channels=64)):
        sa_core.sa_resnet18(**options)


def test_feature_maps_work_with_any_resnet() -> None:
    model = create_model("resnet18", attention="se")
    assert len(FeatureMaps(model)(noise(1, 3, 64, 64))) == 5


# --- With timm and torch.hub.


def test_timm_builds_the_networks_of_sa_core() -> None:
    assert set(timm.list_models("sa_resnet*")) == set(SA_RESNETS)
    model, ours = timm.create_model("sa_resnet18", num_classes=7, gate="tanh1").eval(), small(gate="tanh1")
    model.load_state_dict(ours.state_dict(), strict=True)
    x = noise(2, 3, 64, 64)
    assert torch.equal(model(x), ours(x))
    assert type(timm.create_model("sa_resnet18", in_chans=1)(x[:, :1])) is Tensor
    assert timm.create_model("sa_resnet18", num_classes=0)(x).shape == (2, 512)
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 224, 224)


def test_timm_loads_an_official_checkpoint(tmp_path: Any) -> None:
    state = official_state("sa_resnet50")
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "sa.pth.tar")
    model = timm.create_model("sa_resnet50", checkpoint_path=str(tmp_path / "sa.pth.tar"))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook", "fx"])
def test_timm_extracts_feature_maps_from_networks_with_attention(feature_cls: str) -> None:
    x = noise(2, 3, 64, 64)
    for name, options in (
        ("sa_resnet18", {}),
        ("resnet50", {"block_args": {"attn_layer": ShuffleAttention}}),
    ):
        options |= {"features_only": True, "out_indices": (1, 4), "feature_cls": feature_cls}
        model = timm.create_model(name, **options).eval()
        for module in model.modules():
            if isinstance(module, ShuffleAttention):
                randomised(module)
        found = model(x)
        found = list(found.values()) if isinstance(found, dict) else found
        assert [feature_map.shape[1] for feature_map in found] == model.feature_info.channels()
        assert model.feature_info.reduction() == [4, 32]
        if name == "sa_resnet18":
            maps = sa_core.sa_resnet18(features_only=True, out_indices=(1, 4)).eval()
            prefix = {"hook": "body.", "fx": "graph_module."}.get(feature_cls, "")
            state = {name.removeprefix(prefix): value for name, value in model.state_dict().items()}
            maps.load_state_dict(state, strict=True)
            assert all(torch.equal(*pair) for pair in zip(found, maps(x), strict=True))


def test_timm_knows_the_networks_only_after_the_import_of_sa_core_timm() -> None:
    code = "import sa_core, sys; sa_core.sa_resnet18; assert 'timm' not in sys.modules; import timm; "
    code += "assert not timm.is_model('sa_resnet18'); import sa_core.timm; assert timm.is_model('sa_resnet18')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torch_hub_loads_them_from_a_checkout() -> None:
    call = f"torch.hub.load({str(ROOT)!r}, 'sa_resnet18', source='local', num_classes=7)"
    code = f"import torch; print({call}.get_classifier())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert "out_features=7" in done.stdout, done.stderr
