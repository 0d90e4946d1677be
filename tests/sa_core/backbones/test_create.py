from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from sa_core import ATTENTION, ShuffleAttention, create_model
from sa_core.backbones.insertion_points import POSITIONS
from sa_core.backbones.registry import BACKBONES
from sa_core.errors import OptionError
from tests.sa_core.helpers import SMALL, count, noise, on_meta, randomised
from tests.wording import refusal, worded

# Small images, for speed. A batch of two is enough for batch norm in training.
SIZES = {"cifar_resnet": 16, "resnet": 64, "shufflenet": 64}


def torchvisions(name: str, **options: Any) -> nn.Module:
    """torchvision's network of this name."""
    return torchvision.models.get_model(name, **options)  # type: ignore[no-any-return]


def images(backbone: str) -> Tensor:
    return noise(2, 3, *[SIZES[BACKBONES[backbone].family]] * 2)


@pytest.mark.parametrize(
    ("name", "attention", "parameters"),
    [
        ("resnet18", "none", 11_689_512),
        ("resnet34", "none", 21_797_672),
        ("resnet50", "none", 25_557_032),
        ("resnet50", "sa", 25_557_740),
        ("resnet50", "se", 28_088_024),
        ("resnet50", "sge", 25_559_080),
        ("resnet50", "cbam", 28_089_624),
        ("resnet50", "frozen", 25_557_740),
        ("resnet50", "se_matched", 25_557_740),
        ("resnet50", "identity", 25_557_032),
        ("resnet50", "constant", 25_557_032),
        ("resnet50", "permute", 25_557_032),
        ("resnet101", "none", 44_549_160),
        ("resnet101", "sa", 44_550_684),
        ("shufflenet_v2_x0_5", "none", 1_366_792),
        ("shufflenet_v2_x1_0", "none", 2_278_604),
    ],
)
def test_networks_for_imagenet_have_the_published_size(name: str, attention: str, parameters: int) -> None:
    assert count(on_meta(name=name, attention=attention, num_classes=1000)) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    # He et al. 2015, table 6, gives 0.27 M, 0.46 M and 0.85 M; the exact counts are those of implementations with
    # shortcuts of option A and ten classes.
    [("resnet20", 269_722), ("resnet32", 464_154), ("resnet56", 853_018)],
)
def test_cifar_resnets_have_the_published_size(name: str, parameters: int) -> None:
    assert count(create_model(name)) == parameters


def test_an_official_state_dict_of_sa_resnet50_loads_strictly() -> None:
    official = torchvision.models.resnet50().state_dict()
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        c = 128 * 2**layer // (2 * 64)
        for block in range(blocks):
            path = f"layer{layer}.{block}.sa"
            for name in ("cweight", "cbias", "sweight", "sbias"):
                official[f"{path}.{name}"] = torch.randn(1, c, 1, 1)
            official |= {f"{path}.gn.{name}": torch.randn(c) for name in ("weight", "bias")}
    model = create_model("resnet50", attention="sa", num_classes=1000)
    model.load_state_dict(official, strict=True)
    assert all(torch.equal(value, official[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"]
)
def test_a_plain_network_has_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs = torchvisions(name).state_dict()
    ours = on_meta(name=name, num_classes=1000).state_dict()
    assert [(name, value.shape) for name, value in ours.items()] == [(n, value.shape) for n, value in theirs.items()]


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("resnet18", "residual"),
        ("resnet50", "residual"),
        *(("shufflenet_v2_x0_5", position) for position in POSITIONS),
    ],
)
def test_a_plain_network_equals_torchvisions_bit_for_bit(name: str, position: str) -> None:
    theirs = torchvisions(name, num_classes=7)
    x = images(name)
    theirs.train()(x)  # sets the running statistics
    theirs.eval()
    ours = create_model(name, num_classes=7, position=position).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_a_plain_network_has_torchvisions_initial_weights() -> None:
    for name in ("resnet18", "shufflenet_v2_x0_5"):
        torch.manual_seed(5)
        theirs = torchvisions(name, num_classes=10).state_dict()
        ours = create_model(name, seed=5).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_attention_is_in_every_block_with_the_channels_of_its_insertion_point(name: str, position: str) -> None:
    model = on_meta(name=name, attention="sa", groups=1, position=position)
    found = {path: module.channels for path, module in model.named_modules() if isinstance(module, ShuffleAttention)}
    assert found == {point.path: point.channels for point in BACKBONES[name].insertion_points(position)}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", ["resnet8", "resnet18", "shufflenet_v2_x0_5"])
def test_a_network_with_attention_trains_at_every_position(name: str, position: str) -> None:
    model = create_model(name, attention="sa", groups=4, position=position)
    out = model(images(name))
    assert out.shape == (2, 10)
    out.square().sum().backward()
    assert [path for path, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("attention", ATTENTION)
def test_every_attention_trains_within_a_network(attention: str) -> None:
    model = create_model("resnet8", attention=attention, **SMALL[attention])
    model(images("resnet8")).square().sum().backward()
    for path, parameter in model.named_parameters():
        assert (parameter.grad is None) == (attention == "frozen" and ".sa." in path), path


@pytest.mark.parametrize("attention", ATTENTION)
def test_every_attention_has_the_same_backbone_weights_with_the_same_seed(attention: str) -> None:
    plain = create_model("resnet8", seed=3).state_dict()
    variant = create_model("resnet8", attention=attention, seed=3, **SMALL[attention]).state_dict()
    assert all(torch.equal(variant[name], value) for name, value in plain.items())
    assert all(".sa." in name for name in variant.keys() - plain.keys())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20", {"attention": "sa", "groups": 4, "branches": "spatial", "norm": "batch"}),
        ("resnet20", {"attention": "sa", "groups": 4, "permutation": "random", "stages": "last"}),
        ("resnet18", {"attention": "frozen", "groups": 16}),
        ("resnet18", {"attention": "se", "position": "pre"}),
        ("resnet18", {"attention": "sa", "groups": 16, "stem": "cifar"}),
        ("shufflenet_v2_x0_5", {"attention": "permute"}),
        ("shufflenet_v2_x0_5", {"attention": "cbam", "stem": "cifar", "position": "post"}),
        ("timm/resnet26", {"attention": "frozen"}),
        ("timm/resnet26", {"attention": "permute"}),
    ],
)
def test_networks_with_the_same_seed_differ_only_in_attention(name: str, options: dict[str, Any]) -> None:
    stem = {"stem": options["stem"]} if "stem" in options else {}
    plain, variant = create_model(name, seed=3, **stem).state_dict(), create_model(name, seed=3, **options).state_dict()
    assert all(torch.equal(variant[key], value) for key, value in plain.items())
    assert len(variant) > len(plain)


def test_weights_are_reproducible_and_depend_on_the_seed() -> None:
    options: dict[str, Any] = {"attention": "frozen", "groups": 4, "permutation": "random"}
    first, repeated, other_seed = (create_model("resnet8", seed=seed, **options).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(repeated[name], value) for name, value in first.items())
    for name in ("conv1.weight", "layer1.0.sa.cweight", "layer1.0.sa.permutation"):
        assert not torch.equal(other_seed[name], first[name]), name


def test_attention_has_a_separate_random_stream() -> None:
    # A backbone that draws more random numbers does not change the weights of attention.
    few_classes, many_classes = (
        create_model("resnet8", attention="frozen", groups=4, num_classes=n, seed=0) for n in (2, 1000)
    )
    first, second = (model.get_parameter("layer1.0.sa.cweight") for model in (few_classes, many_classes))
    assert torch.equal(first, second)


def test_attention_differs_between_insertion_points() -> None:
    model = create_model("resnet20", attention="frozen", groups=1, seed=0)
    first, second = (model.get_parameter(f"layer1.{block}.sa.cweight") for block in (0, 1))
    assert not torch.equal(first, second)


def test_every_variant_advances_the_global_generator_equally() -> None:
    states = []
    for attention in ATTENTION:
        torch.manual_seed(0)
        create_model("resnet8", attention=attention, **SMALL[attention])
        states.append(torch.random.get_rng_state())
    assert all(torch.equal(states[0], state) for state in states[1:])


def test_with_a_seed_the_global_generator_stays_unchanged() -> None:
    before = torch.random.get_rng_state()
    create_model("resnet8", attention="permute", seed=0)
    create_model("timm/resnet26", attention="permute", seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_seed_weights_depend_on_the_global_generator() -> None:
    torch.manual_seed(0)
    first, second = (create_model("resnet8").get_parameter("conv1.weight") for _ in range(2))
    torch.manual_seed(0)
    assert torch.equal(create_model("resnet8").get_parameter("conv1.weight"), first)
    assert not torch.equal(first, second)


def convolve(x: Tensor, layer: Any, stride: int = 1, groups: int = 1) -> Tensor:
    return F.conv2d(x, layer.weight, None, stride, layer.weight.shape[-1] // 2, 1, groups)


def normalise(x: Tensor, layer: Any) -> Tensor:
    shape = (1, -1, 1, 1)
    mean, var, weight, bias = (
        getattr(layer, name).view(shape) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias  # type: ignore[no-any-return]


def basic_residual(block: Any, x: Tensor, stride: int) -> Tensor:
    x = torch.relu(normalise(convolve(x, block.conv1, stride), block.bn1))
    return normalise(convolve(x, block.conv2), block.bn2)


def bottleneck_residual(block: Any, x: Tensor, stride: int) -> Tensor:
    x = torch.relu(normalise(convolve(x, block.conv1), block.bn1))
    x = torch.relu(normalise(convolve(x, block.conv2, stride), block.bn2))  # with the stride, as in torchvision
    return normalise(convolve(x, block.conv3), block.bn3)


def padded_shortcut(block: Any, x: Tensor, stride: int) -> Tensor:
    x = x[:, :, ::stride, ::stride]
    return torch.cat([x, torch.zeros(len(x), len(block.bn2.weight) - x.shape[1], *x.shape[2:])], dim=1)


def projected_shortcut(block: Any, x: Tensor, stride: int) -> Tensor:
    return normalise(convolve(x, block.downsample[0], stride), block.downsample[1]) if block.downsample else x


def add(residual: Tensor, shortcut: Tensor) -> Tensor:
    return torch.relu(residual + shortcut)


def unit_residual(unit: Any, x: Tensor, stride: int) -> Tensor:
    pointwise, norm1, _, depthwise, norm2, last, norm3, _ = unit.branch2
    x = torch.relu(normalise(convolve(x, pointwise), norm1))
    x = normalise(convolve(x, depthwise, stride, x.shape[1]), norm2)
    return torch.relu(normalise(convolve(x, last), norm3))


def unit_shortcut(unit: Any, x: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return x
    depthwise, norm1, pointwise, norm2, _ = unit.branch1
    x = normalise(convolve(x, depthwise, stride, x.shape[1]), norm1)
    return torch.relu(normalise(convolve(x, pointwise), norm2))


def interleave(residual: Tensor, shortcut: Tensor) -> Tensor:
    pairs = [tensor[:, i] for i in range(residual.shape[1]) for tensor in (shortcut, residual)]
    return torch.stack(pairs, dim=1)


Path = Callable[[Any, Tensor, int], Tensor]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(
    ("name", "path", "channels", "stride", "residual", "shortcut"),
    [
        ("resnet8", "layer1.0", 16, 1, basic_residual, padded_shortcut),
        ("resnet8", "layer2.0", 16, 2, basic_residual, padded_shortcut),
        ("resnet18", "layer1.1", 64, 1, basic_residual, projected_shortcut),
        ("resnet18", "layer2.0", 64, 2, basic_residual, projected_shortcut),
        ("resnet50", "layer1.0", 64, 1, bottleneck_residual, projected_shortcut),
        ("resnet50", "layer1.1", 256, 1, bottleneck_residual, projected_shortcut),
        ("resnet50", "layer2.0", 256, 2, bottleneck_residual, projected_shortcut),
        ("shufflenet_v2_x0_5", "stage2.0", 24, 2, unit_residual, unit_shortcut),
        ("shufflenet_v2_x0_5", "stage2.1", 48, 1, unit_residual, unit_shortcut),
    ],
)
def test_a_block_has_attention_at_its_position(
    name: str, path: str, channels: int, stride: int, residual: Path, shortcut: Path, position: str
) -> None:
    model = create_model(name, attention="sa", groups=4, position=position, stages="all", seed=0)
    block: Any = randomised(model.get_submodule(path)).eval()
    x = noise(2, channels, 8, 8)
    before = x.clone()
    with torch.no_grad():
        out = block(x)
        left = right = x
        join = add
        if name.startswith("shufflenet"):
            join = interleave
            if stride == 1:
                right, left = x[:, : channels // 2], x[:, channels // 2 :]
        if position == "residual":
            expected = join(block.sa(residual(block, left, stride)), shortcut(block, right, stride))
        elif position == "pre":
            expected = join(residual(block, block.sa(left), stride), shortcut(block, right, stride))
        elif position == "shortcut":
            expected = join(residual(block, left, stride), block.sa(shortcut(block, right, stride)))
        else:
            expected = block.sa(join(residual(block, left, stride), shortcut(block, right, stride)))
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("stages", "layers"), [("all", {1, 2, 3}), ("first", {1}), ("last", {3}), ("2", {2}), ("1+3", {1, 3})]
)
def test_stages_select_the_blocks_with_attention(stages: str, layers: set[int]) -> None:
    model = create_model("resnet20", attention="sa", groups=4, stages=stages)
    filled = {path for path, module in model.named_modules() if isinstance(module, ShuffleAttention)}
    assert filled == {f"layer{layer}.{block}.sa" for layer in layers for block in range(3)}


@pytest.mark.parametrize(
    ("name", "first", "channels"),
    [("resnet18", "layer1", 64), ("resnet50", "layer1", 64), ("shufflenet_v2_x0_5", "stage2", 24)],
)
@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("imagenet", 8), (None, 8)])
def test_the_cifar_stem_keeps_the_resolution(name: str, first: str, channels: int, stem: str | None, size: int) -> None:
    model = on_meta(name=name, stem=stem)
    shapes = []
    model.get_submodule(first).register_forward_pre_hook(lambda _module, inputs: shapes.append(inputs[0].shape))
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)
    assert shapes == [(2, channels, size, size)]


@pytest.mark.parametrize(("name", "stem"), [("resnet18", "conv1"), ("shufflenet_v2_x0_5", "conv1.0")])
def test_the_cifar_stem_is_a_3x3_convolution(name: str, stem: str) -> None:
    first = create_model(name, stem="cifar").get_submodule(stem)
    assert isinstance(first, nn.Conv2d)
    assert (first.kernel_size, first.stride, first.padding, first.bias) == ((3, 3), (1, 1), (1, 1), None)


@pytest.mark.parametrize(
    ("name", "stem", "path"),
    [
        ("resnet20", None, "conv1"),
        ("resnet20", None, "layer2.0.conv1"),
        ("resnet20", None, "layer3.0.conv1"),
        ("resnet18", "cifar", "conv1"),
    ],
)
def test_convolutions_have_he_initialization_by_fan_out(name: str, stem: str | None, path: str) -> None:
    weight = create_model(name, stem=stem, seed=0).get_parameter(f"{path}.weight")
    outputs, _, height, width = weight.shape
    assert weight.std().item() == pytest.approx((2 / (outputs * height * width)) ** 0.5, rel=0.1)


def test_the_output_has_one_logit_per_class() -> None:
    model = create_model("resnet8", attention="sa", groups=8, num_classes=7)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert model(torch.randn(2, 3, 33, 47)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet21"}, refusal("model=resnet21", "backbones.unknown", valid="resnet8, resnet20")),
        ({"name": "resnet20", "attention": "sb"}, refusal("attention=sb", "options.unknown", valid="none, sa")),
        ({"name": "resnet18", "stem": "small"}, refusal("stem=small", "options.unknown", valid="imagenet, cifar")),
        ({"name": "resnet20", "stem": "cifar"}, refusal("stem=cifar", "backbones.own_stem", model="resnet20")),
        (
            {"name": "timm/resnet26", "stem": "cifar"},
            refusal("stem=cifar", "backbones.own_stem", model="timm/resnet26"),
        ),
        (
            {"name": "resnet20", "position": "inside"},
            refusal("position=inside", "options.unknown", valid="residual, pre, post, short"),
        ),
        ({"name": "resnet20", "stages": "4"}, refusal("stages=4", "backbones.no_stages", model="resnet20", last=3)),
        (
            {"name": "resnet20", "attention": "sa", "groups": 16},
            refusal("groups=16", "knobs.not_split", channels=16, then="(at layer1.0.sa of resnet20)"),
        ),
        (
            {"name": "resnet20", "attention": "sa", "groups": 16, "stages": "2+3", "position": "pre"},
            refusal("groups=16", "knobs.not_split", channels=16, then="(at layer2.0.sa of resnet20)"),
        ),
        (
            {"name": "resnet18", "attention": "sa"},
            refusal("groups=64", "knobs.not_split", channels=64, then="(at layer1.0.sa of resnet18)"),
        ),
        (
            {"name": "resnet8", "attention": "sa", "groups": 4, "branches": "none", "gate": "none"},
            refusal("gate=none", "knobs.idle", then=("branches=none", "(at layer1.0.sa of resnet8)")),
        ),
        (
            {"name": "resnet8", "attention": "sa", "groups": 4, "norm": "group"},
            refusal("norm=group", "options.unknown", then="(at layer1.0.sa of resnet8)", valid="instance, group:<k>"),
        ),
    ],
)
def test_an_invalid_combination_raises_an_error_with_the_reason(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        create_model(**arguments)


@pytest.mark.parametrize("attention", ATTENTION)
def test_an_unknown_knob_raises_type_error(attention: str) -> None:
    with pytest.raises(TypeError, match=worded("knobs.has_no", attention=attention, knob="groop")):
        create_model("resnet8", attention=attention, groop=2)


def test_shortcuts_have_no_parameters_and_keep_the_first_channels() -> None:
    block: Any = create_model("resnet8", seed=0).eval().get_submodule("layer2.0")
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(1, 16, 8, 8).abs()
    out = block(x)
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "shufflenet_v2_x0_5", "timm/resnet26"])
def test_a_whole_network_can_be_pickled(name: str) -> None:
    model = create_model(name, attention="sa", groups=4, seed=0).eval()
    twin = pickle.loads(pickle.dumps(model))
    x = noise(1, 3, 64, 64)
    assert torch.equal(twin(x), model(x))
