from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablations.common.sizes import MIB
from ablations.measure.memory import buffer_count, mode, parameter_count, peak_memory, saved_bytes
from sa_core import ATTENTION, ShuffleAttention, create_model
from tests.torch_versions import GROUP_NORM_COPIES_VIEWS

CPU = torch.device("cpu")


def test_the_peak_is_the_maximum_of_the_allocated_memory() -> None:
    def step() -> None:
        first = torch.ones(MIB)  # 4 MiB
        second = first + 1  # 8 MiB
        del first
        third = second * 2  # 8 MiB again
        del second, third

    assert peak_memory(step, [], CPU) == pytest.approx(8, abs=0.001)


def test_persistent_tensors_are_added() -> None:
    assert peak_memory(lambda: None, [torch.zeros(MIB), torch.zeros(MIB, dtype=torch.bool)], CPU) == 5


def test_the_peak_includes_saved_activations() -> None:
    x = torch.zeros(MIB, requires_grad=True)

    def step(operations: int) -> None:
        y = x
        for _ in range(operations):
            y = torch.sigmoid(y)  # saves its output, 4 MiB
        y.sum().backward()
        x.grad = None

    assert peak_memory(lambda: step(5), [x], CPU) - peak_memory(lambda: step(3), [x], CPU) == pytest.approx(
        8, abs=0.001
    )


def test_an_inference_holds_two_maps_at_a_time() -> None:
    layers, x = nn.Sequential(*(nn.Sigmoid() for _ in range(5))), torch.zeros(MIB)

    def step() -> None:
        with torch.no_grad():
            layers(x)

    assert peak_memory(step, [], CPU) == pytest.approx(8, abs=0.001)  # the input and the output of a layer


def test_parameters_are_counted_one_by_one() -> None:
    plain, attended = create_model("resnet8"), create_model("resnet8", attention="sa", groups=8)
    assert parameter_count(attended) - parameter_count(plain) == sum(6 * channels // 16 for channels in (16, 32, 64))


def test_buffers_are_counted_one_by_one() -> None:
    assert buffer_count(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))) == 2 * 8 + 1  # and num_batches_tracked
    assert buffer_count(ATTENTION["permute"](128)) == 128


SHAPES = [(1, 7), (2, 7), (2, 12), (5, 1)]  # number of images, and side of their feature maps


@pytest.mark.parametrize(("batch", "side"), SHAPES)
@pytest.mark.parametrize("groups", [64, 8])
@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_shuffle_attention_saves_twice_its_map(batch: int, side: int, groups: int, device: str) -> None:
    channels = 128
    full = batch * channels * side**2
    half, pooled = full // 2, batch * channels // 2
    saved = [
        full,  # x: both halves are views of it, used by the two gates and the norm
        pooled,  # the pooled values, which cweight multiplies
        pooled,  # the channel gate: saved once, as the output of sigmoid and as a factor
        2 * pooled,  # mean and deviation of the norm, a pair for each channel of the half and image
        half,  # the normalised half, which sweight multiplies
        half,  # the spatial gate, like the channel gate
        half * GROUP_NORM_COPIES_VIEWS,  # the input of the norm
        # Additions, mean, concatenation and shuffle need no values; the weights are parameters.
    ]
    x = torch.ones(batch, channels, side, side, device=device, requires_grad=True)
    assert saved_bytes(ShuffleAttention(channels, groups, fused="off", device=device), x) == 4 * sum(saved)


@pytest.mark.parametrize("groups", [8, 64])
@pytest.mark.parametrize(("batch", "side"), SHAPES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_the_kernels_of_shuffle_attention_save_its_map_and_two_values_per_channel(
    batch: int, side: int, groups: int, device: str
) -> None:
    module, x = ShuffleAttention(128, groups, device=device), torch.ones(batch, 128, side, side, device=device)
    if reason := module.reason_against(x.dtype):
        pytest.skip(reason)
    assert saved_bytes(module, x.requires_grad_()) == 4 * (x.numel() + 2 * batch * 128)


@pytest.mark.parametrize(("batch", "side"), SHAPES)
def test_squeeze_excitation_saves_its_map_once(batch: int, side: int) -> None:
    channels, hidden = 256, 16
    saved = [
        batch * channels * side**2,  # x, which the gate multiplies
        batch * channels,  # the pooled values, the input of the first layer
        batch * hidden,  # the hidden units: output of the ReLU, which is in place, and input of the second layer
        batch * channels,  # the gate: output of the sigmoid, and factor of x
    ]
    x = torch.ones(batch, channels, side, side, requires_grad=True)
    assert saved_bytes(ATTENTION["se"](channels), x) == 4 * sum(saved)


@pytest.mark.parametrize(("batch", "side"), [(1, 32), (2, 32), (2, 20)])
def test_a_residual_network_saves_two_maps_for_each_convolution(batch: int, side: int) -> None:
    saved = [
        batch * 3 * side**2,  # the images, input of the first convolution
        2 * batch * 16 * side**2,  # its output, input of the norm; and the output of norm and in-place ReLU
        2 * 16,  # mean and deviation of the batch
    ]
    for channels, shrunk in ((16, 1), (32, 2), (64, 4)):
        a_map = batch * channels * (side // shrunk) ** 2
        for _ in range(3):
            saved += [
                a_map,  # the first convolution's output, input of its norm
                a_map,  # the ReLU's output, input of the second convolution
                a_map,  # the second convolution's output, input of its norm
                a_map,  # the block's output, of a ReLU in place, input of the next block; the addition needs nothing
                2 * 2 * channels,  # mean and deviation of both norms
            ]
    saved.append(batch * 64)  # the pooled values, input of the last layer
    images = torch.ones(batch, 3, side, side)
    assert saved_bytes(create_model("resnet20"), images) == 4 * sum(saved)


class Function(nn.Module):
    """A function as a module, with a weight and a buffer."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(4, 4))
        self.register_buffer("order", torch.arange(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (lambda _, x: x + 1, 0),
        (lambda _, x: torch.sigmoid(x), 16),
        (lambda _, x: torch.sigmoid(x[0]), 4),
        (lambda _, x: x[0] * x[1], 16),  # two views keep the whole storage of x, once
        (lambda module, _: module.weight * 2, 0),
        (lambda module, x: x * module.weight, 16),  # only x: the weight persists anyway
        (lambda module, x: x @ module.weight.t()[:, :2], 16),  # also a view of the weight
        (lambda module, x: x.index_select(0, module.order), 0),  # a buffer
        (lambda module, x: x * torch.sigmoid(module.weight), 32),  # derived from the weight, but another tensor
    ],
)
def test_saved_bytes_of_functions(function: Callable[[nn.Module, Tensor], Tensor], numbers: int) -> None:
    assert saved_bytes(Function(function), torch.ones(4, 4, requires_grad=True)) == 4 * numbers


def test_tensors_that_the_output_does_not_need_are_not_counted() -> None:
    def used(_: nn.Module, x: Tensor) -> Tensor:
        torch.sigmoid(x).exp()  # the result is unused
        return x.exp()

    assert saved_bytes(Function(used), torch.ones(4, 4, requires_grad=True)) == 4 * 16


def test_a_gate_is_not_saved_if_the_input_requires_no_gradient() -> None:
    module = ATTENTION["constant"](8)
    assert saved_bytes(module, torch.ones(1, 8, 4, 4)) == 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_saved_bytes_do_not_depend_on_the_callers_gradient_mode(
    context: Callable[[], AbstractContextManager[Any]],
) -> None:
    module, x = ShuffleAttention(16, 2), torch.ones(2, 16, 4, 4, requires_grad=True)
    expected = saved_bytes(module, x)
    with context():
        assert saved_bytes(module, x) == expected > 0


def test_counting_saved_bytes_does_not_change_the_module() -> None:
    model = create_model("resnet8").eval()
    model.get_submodule("layer2").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    training = [part.training for part in model.modules()]
    saved_bytes(model, torch.ones(2, 3, 32, 32))
    with pytest.raises(RuntimeError, match="channels"):
        saved_bytes(model, torch.ones(2, 4, 32, 32))
    assert [part.training for part in model.modules()] == training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_the_mode_of_each_submodule_is_restored() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with mode(model, training=False):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, True, False]
