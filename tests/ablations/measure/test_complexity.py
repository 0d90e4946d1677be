from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ablations.measure.complexity import COUNTED, Complexity, count_operations
from sa_core import ATTENTION, ShuffleAttention, create_model
from tests.torch_versions import GROUP_NORM_COPIES_VIEWS

META = torch.device("meta")
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def empty(*shape: int, device: torch.device = META) -> Tensor:
    return torch.empty(shape, device=device)


def on_meta(name: str, **options: Any) -> nn.Module:
    with META:
        return create_model(name, seed=0, **options)


def places(backbone: str) -> Iterator[tuple[int, int]]:
    """Yields channels and positions of each block's output at 224x224."""
    for stage, blocks in enumerate(BLOCKS[backbone]):
        yield from [(256 * 2**stage, (56 >> stage) ** 2)] * blocks


# Multiply-adds that only our counter includes, as functions of `channels` and `positions`, with the reason.
DIFFERENCES: dict[str, Callable[[int, int], int]] = {
    "none": lambda *_: 0,
    "sa": lambda *_: 0,
    # timm's two layers are 1x1 convolutions, whose biases are counted; those of the official linear layers are not.
    "se": lambda channels, _: channels // 16 + channels,
    # The same, twice: for average and for maximum. (The max pools of the official code are modules, and counted.)
    "cbam": lambda channels, _: 2 * (channels // 16 + channels),
    # The mean that standardizes the 64 groups' similarity over the positions counts as global average pooling; in the
    # official code it is not a module.
    "sge": lambda _, positions: 64 * positions,
    # The convolution along the channels is a Conv1d, which the official counter does not support.
    "eca": lambda channels, _: channels * (7 if channels == 2048 else 5),
}
# GFLOPs of the official implementations at 224x224, counted by flops_counter.py of PytorchInsight.
GOLDEN = [
    ("resnet50", "none", 4.121924, 4_121_924_096),
    ("resnet50", "sa", 4.124684, 4_124_683_776),
    ("resnet50", "se", 4.129959, 4_129_975_392),
    ("resnet50", "cbam", 4.139381, 4_139_413_388),
    ("resnet50", "sge", 4.127443, 4_128_330_944),
    ("resnet50", "eca", 4.127443, 4_127_531_264),
    ("resnet101", "none", 7.849499, 7_849_499_136),
    ("resnet101", "sa", 7.853965, 7_853_964_800),
    ("resnet101", "se", 7.863176, 7_863_210_208),
    ("resnet101", "cbam", 7.878572, 7_878_641_180),
    ("resnet101", "sge", 7.858430, 7_859_531_200),
    ("resnet101", "eca", 7.858430, 7_858_605_312),
]


@pytest.mark.parametrize(("backbone", "attention", "official", "ours"), GOLDEN)
def test_multiply_adds_match_the_official_counter_except_for_what_it_omits(
    backbone: str, attention: str, official: float, ours: int
) -> None:
    difference = sum(DIFFERENCES[attention](*place) for place in places(backbone))
    model = on_meta(backbone, attention=attention, num_classes=1000)
    assert count_operations(model, empty(1, 3, 224, 224)).multiply_adds == ours
    assert round((ours - difference) / 1e9, 6) == official


def test_the_gflops_of_shuffle_attention_in_the_paper_s_abstract_are_those_of_its_average_pools() -> None:
    plain, attended = (
        count_operations(on_meta("resnet50", attention=name, num_classes=1000), empty(1, 3, 224, 224))
        for name in ("none", "sa")
    )
    half = sum(channels // 2 * positions for channels, positions in places("resnet50"))
    pooled = sum(channels // 2 for channels, _ in places("resnet50"))
    assert attended.multiply_adds - plain.multiply_adds == half == 2_759_680
    more = {
        kind: operations - plain.uncounted_kinds.get(kind, 0) for kind, operations in attended.uncounted_kinds.items()
    }
    assert more == {
        "multiplication": 3 * half
        + pooled,  # both gates, and the weight of the spatial half; that of the pooled values
        "addition": half + pooled,  # the biases
        "sigmoid": half + pooled,
        "group norm": 2 * half,
        "copy": (4 + GROUP_NORM_COPIES_VIEWS) * half,  # the halves are joined, then shuffled
    }


@pytest.mark.parametrize("name", ["resnet8", "resnet18", "shufflenet_v2_x0_5", "timm/resnet26", "timm/gernet_s"])
def test_pytorchs_counter_counts_the_same_products(name: str) -> None:
    model, images = on_meta(name), empty(2, 3, 64, 64)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model.eval()(images)
    ours = count_operations(model, images).operations
    assert theirs.get_total_flops() / 2 / 2 == ours["convolution"] + ours["matrix product"]


@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    batch=st.integers(1, 3),
)
@settings(max_examples=50)
def test_convolutions_follow_the_textbook_formula(
    kernel: int, stride: int, padding: int, dilation: int, groups: int, bias: bool, batch: int
) -> None:
    layer = nn.Conv2d(8, 12, kernel, stride, padding, dilation, groups, bias, device=META)
    high, wide = ((side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 for side in (11, 16))
    expected = 12 * high * wide * (8 // groups * kernel**2 + bias)
    counted = count_operations(layer, empty(batch, 8, 11, 16))
    assert counted.multiply_adds == expected
    assert counted.layers[0].shape == (batch, 12, high, wide)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv1d(4, 6, 3, padding=1, device=META), (4, 10), 6 * 10 * (4 * 3 + 1)),
        (nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False, device=META), (4, 5, 5), 4 * 25 * 6 * 9),
        (nn.Linear(5, 7, device=META), (5,), 5 * 7),
        (nn.Linear(5, 7, bias=False, device=META), (3, 5), 3 * 5 * 7),
        (nn.BatchNorm2d(4, device=META), (4, 5, 5), 2 * 100),
        (nn.BatchNorm2d(4, affine=False, device=META), (4, 5, 5), 100),
        (nn.ReLU(), (4, 5, 5), 100),
        (nn.ReLU(inplace=True), (4, 5, 5), 100),
        (nn.ReLU6(), (4, 5, 5), 100),
        (nn.LeakyReLU(), (4, 5, 5), 100),
        (nn.PReLU(device=META), (4, 5, 5), 100),
        (nn.MaxPool2d(3, 2, 1), (4, 8, 8), 256),
        (nn.AvgPool2d(2), (4, 8, 8), 256),
        (nn.AdaptiveAvgPool2d(1), (4, 8, 8), 256),
        (nn.AdaptiveAvgPool2d(2), (4, 8, 8), 256),
        (nn.AdaptiveMaxPool2d(1), (4, 8, 8), 256),
        (Function(lambda x: x.mean((2, 3))), (4, 8, 8), 256),
        (Function(lambda x: x.amax((-1, -2), keepdim=True)), (4, 8, 8), 256),
        (Function(lambda x: x @ x.transpose(1, 2)), (4, 6), 4 * 6 * 4),
    ],
    ids=str,
)
def test_counted_operations(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    counted = count_operations(layer, empty(2, *shape))
    assert (counted.multiply_adds, counted.uncounted) == (expected, 0)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.GroupNorm(2, 4, device=META), {"group norm": 200}),
        (nn.GroupNorm(2, 4, affine=False, device=META), {"group norm": 100}),
        (nn.LayerNorm((4, 5, 5), device=META), {"layer norm": 200}),
        (nn.Sigmoid(), {"sigmoid": 100}),
        (nn.Hardsigmoid(inplace=True), {"hardsigmoid": 100}),
        (nn.Softmax(1), {"softmax": 100}),
        (Function(lambda x: 1 + torch.tanh(x)), {"tanh": 100, "addition": 100}),
        (Function(lambda x: x * x.mean((2, 3), keepdim=True)), {"multiplication": 100}),
        (Function(lambda x: (x - 1) / 2), {"addition": 100, "division": 100}),
        (Function(lambda x: x.mean(1)), {"reduction": 100}),
        (Function(lambda x: x.max(1)), {"reduction": 100}),
        (Function(lambda x: x.mean()), {"reduction": 100}),
        (Function(lambda x: x.std((2, 3))), {"reduction": 100}),
        (Function(lambda x: torch.cat([x, x], 1)), {"copy": 200}),
        (Function(lambda x: x.transpose(1, 2).contiguous()), {"copy": 100}),
        (Function(lambda x: F.pad(x, (1, 1))), {"copy": 140}),
        (Function(lambda x: x[:, ::2].flatten(1, 2).unsqueeze(0)), {"copy": 50}),  # flatten has to copy
        (Function(lambda x: x.flatten(1)[:, None].expand(-1, 3, -1)), {}),
        (nn.Identity(), {}),
        (nn.Dropout(), {}),
    ],
    ids=str,
)
def test_uncounted_operations(layer: nn.Module, expected: dict[str, int]) -> None:
    counted = count_operations(layer, empty(2, 4, 5, 5))
    assert counted.uncounted_kinds == expected
    assert counted.uncounted == sum(expected.values())


def test_an_operation_without_a_rule_is_uncounted_under_its_own_name() -> None:
    counted = count_operations(Function(lambda x: torch.special.erfinv(x) + torch.cdist(x, x).sum()), empty(2, 3, 4))
    assert counted.uncounted_kinds == {"erfinv": 12, "_cdist_forward": 9, "reduction": 9, "addition": 12}


@given(
    name=st.sampled_from(sorted(ATTENTION)),
    batch=st.integers(2, 5),
    side=st.integers(1, 9),
)
@settings(max_examples=40)
def test_counts_per_image_do_not_depend_on_the_batch_size(name: str, batch: int, side: int) -> None:
    module = ATTENTION[name](128, device=META)
    alone, together = (count_operations(module, empty(images, 128, side, side)) for images in (1, batch))
    assert alone.operations == together.operations
    assert together.moved_bytes <= batch * alone.moved_bytes  # the parameters are read once


@pytest.mark.parametrize("name", ["resnet8", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize(("attention", "knobs"), [("none", {}), ("sa", {"groups": 4}), ("cbam", {})])
def test_the_whole_is_the_sum_of_its_layers(name: str, attention: str, knobs: dict[str, Any]) -> None:
    counted = count_operations(on_meta(name, attention=attention, **knobs), empty(2, 3, 64, 64))
    assert counted.multiply_adds == sum(layer.multiply_adds for layer in counted.layers)
    assert counted.uncounted == sum(layer.uncounted for layer in counted.layers)
    assert counted.uncounted == sum(counted.uncounted_kinds.values())
    assert counted.moved_bytes == sum(layer.moved_bytes for layer in counted.layers)
    assert counted.multiply_adds + counted.uncounted == sum(counted.operations.values())


SHUFFLES: list[dict[str, Any]] = [
    {},
    {"branches": "channel"},
    {"branches": "spatial", "removed": "reassign"},
    {"branches": "none", "permutation": "random"},
    {"transform": "conv1x1", "pooling": "avg_max", "gate": "hard_sigmoid"},
    {"transform": "none", "norm": "batch", "gate": "tanh1"},
    {"norm": "layer", "norm_affine": False, "pooling": "max", "gate": "none"},
    {"norm": "none", "shuffle": False},
]


@pytest.mark.parametrize(
    ("name", "knobs"), [*((name, {}) for name in ATTENTION if name != "sa"), *(("sa", knobs) for knobs in SHUFFLES)]
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_meta_tensors_have_the_counts_of_the_cpu(name: str, knobs: dict[str, Any], layout: torch.memory_format) -> None:
    def counted(device: str) -> Complexity:
        images = torch.zeros(2, 128, 6, 6, device=device).contiguous(memory_format=layout)
        return count_operations(ATTENTION[name](128, device=torch.device(device), **knobs), images)

    assert counted("meta") == counted("cpu")


@pytest.mark.cuda
@pytest.mark.parametrize(("attention", "knobs"), [("none", {}), ("sa", {"groups": 4})])
def test_meta_tensors_have_the_counts_of_a_gpu(attention: str, knobs: dict[str, Any]) -> None:
    def counted(device: str) -> Complexity:
        model = create_model("resnet8", attention=attention, seed=0, **knobs).to(device)
        return count_operations(model, torch.zeros(2, 3, 32, 32, device=device))

    assert counted("meta") == counted("cuda")


@pytest.mark.parametrize("name", ["resnet26", "seresnet50", "mobilenetv3_small_050", "convnext_atto", "regnety_002"])
def test_networks_of_timm_are_counted(name: str) -> None:
    # Built on the CPU, because constructors of some models compute with tensors.
    counted = count_operations(timm.create_model(name).to(META), empty(1, 3, 224, 224))
    known = {"addition", "multiplication", "copy", "sigmoid", "hardsigmoid", "hardswish", "gelu", "layer norm"}
    assert counted.operations.keys() <= {*COUNTED, *known}
    assert counted.multiply_adds > counted.uncounted > 0


@pytest.mark.parametrize(
    ("layer", "read", "written"),
    [
        (Function(lambda x: x + 1), 200, 200),
        (Function(lambda x: x * x), 200, 200),  # distinct tensors
        (Function(lambda x: x.add_(1)), 200, 200),  # in place
        (Function(lambda x: x * x[:, :, :1, :1]), 200 + 8, 200),  # broadcast
        (Function(lambda x: x * x[:, :, :1, :1].expand_as(x)), 200 + 8, 200),  # the same, expanded
        (Function(lambda x: x.chunk(2, dim=1)[0].relu()), 100, 100),  # half of the map
        (Function(lambda x: x[:, :, ::2, ::2].relu()), 72, 72),
        (Function(lambda x: x.view(2, -1).t()), 0, 0),
        (Function(lambda x: torch.empty_like(x)), 0, 0),
        (nn.Conv2d(4, 6, 3, device=META), 200 + 6 * 4 * 9 + 6, 2 * 6 * 9),
        (nn.BatchNorm2d(4, device=META), 200 + 4 * 4, 200),
        (nn.GroupNorm(2, 4, device=META), 200 + 2 * 4, 200 + 2 * 4),  # mean and deviation of each group
        (nn.MaxPool2d(5), 200, 8 + 2 * 8),  # the indices of the maxima have 8 bytes
    ],
    ids=str,
)
def test_operations_read_their_tensors_and_write_their_results(layer: nn.Module, read: int, written: int) -> None:
    assert count_operations(layer, empty(2, 4, 5, 5)).moved_bytes == 4 * (read + written)


def test_bytes_depend_on_the_dtype() -> None:
    assert count_operations(nn.ReLU(), empty(2, 4, 5, 5).bfloat16()).moved_bytes == 2 * 400
    assert count_operations(Function(lambda x: x.bfloat16()), empty(2, 4, 5, 5)).moved_bytes == (4 + 2) * 200


@pytest.mark.parametrize(("batch", "groups", "side"), [(1, 64, 7), (3, 8, 5)])
def test_shuffle_attention_moves_its_map_eleven_times_and_a_fused_operation_would_move_it_twice(
    batch: int, groups: int, side: int
) -> None:
    channels = 128
    full, c = batch * channels * side**2, channels // (2 * groups)
    half, pooled = full // 2, batch * channels // 2
    moved = [
        half + pooled,  # average pooling
        pooled + c + pooled,  # times cweight
        pooled + c + pooled,  # plus cbias
        pooled + pooled,  # sigmoid
        half + pooled + half,  # gate
        half + 2 * c + half + 2 * pooled,  # group norm, which also writes mean and deviation
        2 * half * GROUP_NORM_COPIES_VIEWS,  # the copy of its input
        half + c + half,  # times sweight
        half + c + half,  # plus sbias
        half + half,  # sigmoid
        half + half + half,  # gate
        full + full,  # concatenation
        full + full,  # shuffle
    ]
    assert sum(moved) == (11 + GROUP_NORM_COPIES_VIEWS) * full + 10 * pooled + 6 * c
    counted = count_operations(ShuffleAttention(channels, groups, device=META), empty(batch, channels, side, side))
    assert counted.moved_bytes == 4 * sum(moved)
    assert counted.least_bytes == 4 * (2 * full + 6 * c)


def test_least_bytes_are_input_output_parameters_and_buffers() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 6, 3, device=META), nn.BatchNorm2d(6, device=META))
    parameters, statistics, batches_seen = 6 * 4 * 9 + 6 + 2 * 6, 2 * 6, 8
    assert (
        count_operations(layer, empty(2, 4, 5, 5)).least_bytes
        == 4 * (200 + 108 + parameters + statistics) + batches_seen
    )


def test_an_operation_belongs_to_the_innermost_module() -> None:
    layers = count_operations(on_meta("resnet8", attention="sa", groups=4), empty(2, 3, 32, 32)).layers
    expected = [
        ("conv1", "Conv2d", (2, 16, 32, 32), {"convolution"}),
        ("bn1", "BatchNorm2d", (2, 16, 32, 32), {"batch norm"}),
        ("", "CifarResNet", (2, 10), {"ReLU", "pooling"}),
        ("layer1.0.conv1", "Conv2d", (2, 16, 32, 32), {"convolution"}),
        ("layer1.0.bn1", "BatchNorm2d", (2, 16, 32, 32), {"batch norm"}),
        ("layer1.0", "CifarBlock", (2, 16, 32, 32), {"ReLU", "addition"}),
        ("layer1.0.conv2", "Conv2d", (2, 16, 32, 32), {"convolution"}),
        ("layer1.0.bn2", "BatchNorm2d", (2, 16, 32, 32), {"batch norm"}),
        (
            *("layer1.0.sa", "ShuffleAttention", (2, 16, 32, 32)),
            {"pooling", "multiplication", "addition", "sigmoid", "copy"},
        ),
        ("layer1.0.sa.gn", "_GroupNorm", (8, 2, 32, 32), {"group norm", *["copy"] * GROUP_NORM_COPIES_VIEWS}),
        ("layer2.0.conv1", "Conv2d", (2, 32, 16, 16), {"convolution"}),
    ]
    assert [(layer.path, layer.kind, layer.shape, set(layer.operations)) for layer in layers[:11]] == expected
    assert layers[-1].path == "fc"


def test_a_module_that_is_called_twice_has_two_rows() -> None:
    relu = nn.ReLU()
    layers = count_operations(nn.Sequential(relu, nn.MaxPool2d(2), relu), empty(1, 4, 8, 8)).layers
    assert [(layer.path, layer.multiply_adds) for layer in layers] == [("0", 256), ("1", 256), ("0", 64)]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_counts_do_not_depend_on_the_callers_gradient_mode(context: Callable[[], AbstractContextManager[Any]]) -> None:
    model, images = on_meta("resnet8", attention="se"), empty(2, 3, 32, 32)
    expected = count_operations(model, images)
    with context():
        assert count_operations(model, images) == expected


def test_counting_does_not_change_the_module() -> None:
    model = create_model("resnet8").train()
    model.get_submodule("layer2").eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = [part.training for part in model.modules()]
    count_operations(model, torch.ones(2, 3, 32, 32))
    with pytest.raises(RuntimeError, match="channels"):
        count_operations(model, torch.ones(2, 4, 32, 32))
    assert [part.training for part in model.modules()] == training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_operations_of_other_hooks_belong_to_their_module() -> None:
    layer = nn.ReLU()
    layer.register_forward_pre_hook(lambda _, inputs: inputs[0] * 2)
    layer.register_forward_hook(lambda _module, _inputs, output: output + 1)
    counted = count_operations(layer, empty(1, 4))
    assert [dict(row.operations) for row in counted.layers] == [{"multiplication": 4, "ReLU": 4, "addition": 4}]


@pytest.mark.parametrize("inputs", [[], [empty(0, 4)], [empty()]])
def test_an_empty_batch_raises(inputs: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="inputs: there is no image to count for"):
        count_operations(nn.ReLU(), *inputs)
