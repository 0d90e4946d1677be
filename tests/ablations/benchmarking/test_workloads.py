from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ablations.benchmarking.workloads import (
    BACKWARD,
    FORWARD,
    STEP,
    Candidate,
    Copy,
    Shape,
    Workload,
    module_inputs,
    module_workload,
    network_workload,
    shapes_of,
)
from ablations.config import TrainConfig
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.variants import Variant, plain_network
from ablations.measure.record import Setting
from ablations.training.learner import Learner, build_network
from sa_core import ATTENTION, ShuffleAttention
from sa_core.backbones.registry import find_backbone
from tests.sa_core.official import OfficialShuffleAttention

CPU = torch.device("cpu")
EAGER = Setting("", "eager", "fp32", "contiguous")
BF16 = Setting("", "eager", "bf16", "contiguous")
CHANNELS_LAST = Setting("", "eager", "fp32", "channels_last")
RESNET8 = {"name": "resnet8"}
SA = ATTENTION["sa"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sets one thread: on small feature maps and a busy machine, threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sa(channels: int) -> nn.Module:
    return SA(channels, groups=4)


def workload_of(make: Callable[[int], nn.Module], setting: Setting = EAGER, channels: int = 16) -> Workload:
    return module_workload(make, *module_inputs((2, channels, 6, 5), setting, CPU), setting)


class Watched(nn.Module):
    """Records its outputs, and whether autocast is enabled."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.outputs: list[Tensor] = []
        self.autocast: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        self.outputs.append(self.inner(x))
        return self.outputs[-1]


def caught_gradients(workload: Workload) -> dict[str, Tensor]:
    """Runs forward and backward once, and returns the gradients of the input and each parameter."""
    gradients: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            gradients[name] = gradient.clone()

        return hook

    learned = {name: each for name, each in workload.module.named_parameters() if each.requires_grad}
    handles = [tensor.register_hook(record(name)) for name, tensor in ({"x": workload.x} | learned).items()]
    workload.acts[BACKWARD]()
    for handle in handles:
        handle.remove()
    return gradients


@pytest.mark.parametrize(
    ("model", "position", "side", "expected"),
    [
        (RESNET8, "residual", 32, [("layer1", 16, 32), ("layer2", 32, 16), ("layer3", 64, 8)]),
        (RESNET8, "residual", 40, [("layer1", 16, 40), ("layer2", 32, 20), ("layer3", 64, 10)]),
        # The shapes of the papers.
        (
            {"name": "resnet50", "stem": "imagenet"}, "residual", 224,
            [("layer1", 256, 56), ("layer2", 512, 28), ("layer3", 1024, 14), ("layer4", 2048, 7)],
        ),
        (
            {"name": "resnet18", "stem": "cifar"}, "residual", 32,
            [("layer1", 64, 32), ("layer2", 128, 16), ("layer3", 256, 8), ("layer4", 512, 4)],
        ),
        # The convolved branch of a unit, which has half of its channels.
        (
            {"name": "shufflenet_v2_x0_5", "stem": "imagenet"}, "residual", 224,
            [("stage2", 24, 28), ("stage3", 48, 14), ("stage4", 96, 7)],
        ),
        # The input of a stage's first block has another shape than that of later blocks.
        (
            {"name": "resnet20"}, "pre", 32,
            [("layer1", 16, 32), ("layer2", 16, 32), ("layer2", 32, 16), ("layer3", 32, 16), ("layer3", 64, 8)],
        ),
        (RESNET8, "post", 32, [("layer1", 16, 32), ("layer2", 32, 16), ("layer3", 64, 8)]),
    ],
)  # fmt: skip
def test_shapes_are_the_distinct_feature_maps_at_insertion_points(
    model: dict[str, Any], position: str, side: int, expected: list[tuple[str, int, int]]
) -> None:
    assert shapes_of(model, position, side) == [Shape(stage, channels, at, at) for stage, channels, at in expected]


@pytest.mark.parametrize(
    "make",
    [
        sa,
        lambda channels: OfficialShuffleAttention(channels, groups=4),
        lambda channels: ATTENTION["se"](channels),
        lambda channels: ATTENTION["cbam"](channels),
        lambda channels: ATTENTION["constant"](channels),  # has no parameters
    ],
    ids=["sa", "official", "se", "cbam", "constant"],
)
@pytest.mark.parametrize("setting", [EAGER, CHANNELS_LAST], ids=["contiguous", "channels_last"])
def test_the_backward_pass_of_a_module_computes_the_gradients_of_autograd(
    make: Callable[[int], nn.Module], setting: Setting
) -> None:
    x, gradient = module_inputs((2, 16, 6, 5), setting, CPU)
    workload = module_workload(make, x, gradient, setting)
    module, copied = copy.deepcopy(workload.module), x.detach().clone().requires_grad_()
    module(copied).backward(gradient)
    assert copied.grad is not None
    parameters = module.named_parameters()
    expected = {"x": copied.grad} | {name: each.grad for name, each in parameters if each.grad is not None}
    gradients = caught_gradients(workload)
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value)
    assert gradients["x"].abs().min() > 0
    # Gradients do not accumulate over calls.
    assert x.grad is None
    assert all(parameter.grad is None for parameter in workload.module.parameters())


def test_the_forward_pass_of_a_module_runs_without_gradients() -> None:
    watched: list[Watched] = []

    def make(channels: int) -> nn.Module:
        watched.append(Watched(sa(channels)))
        return watched[0]

    workload = workload_of(make)
    workload.acts[FORWARD]()
    (output,) = watched[0].outputs
    assert output.is_inference()
    torch.testing.assert_close(output.clone(), watched[0].inner(workload.x.detach()))
    assert not output.requires_grad
    workload.acts[BACKWARD]()
    assert watched[0].outputs[1].requires_grad
    assert watched[0].autocast == [False, False]


def test_a_module_runs_under_autocast_in_bf16() -> None:
    watched: list[Watched] = []

    def make(channels: int) -> nn.Module:
        watched.append(Watched(nn.Conv2d(channels, channels, 1)))
        return watched[0]

    workload = workload_of(make, BF16)
    workload.acts[FORWARD]()
    workload.acts[BACKWARD]()
    workload.saved_bytes()
    assert watched[0].autocast == [True, True, True]
    assert {output.dtype for output in watched[0].outputs} == {torch.bfloat16}


@pytest.mark.parametrize("name", [name for name in ATTENTION if name != "none"])
@pytest.mark.parametrize("setting", [EAGER, BF16, CHANNELS_LAST], ids=["fp32", "bf16", "channels_last"])
def test_every_attention_runs_in_every_setting(name: str, setting: Setting) -> None:
    knobs = {"groups": 4} if name in ("sa", "sge", "frozen", "se_matched") else {}
    workload = workload_of(lambda channels: ATTENTION[name](channels, **knobs), setting, channels=32)
    workload.acts[FORWARD]()
    gradients = caught_gradients(workload)
    assert gradients["x"].dtype == workload.x.dtype
    assert len(gradients) == 1 + sum(parameter.requires_grad for parameter in workload.module.parameters())


@pytest.mark.parametrize(
    ("setting", "dtype", "layout"),
    [
        (EAGER, torch.float32, torch.contiguous_format),
        (BF16, torch.bfloat16, torch.contiguous_format),
        (CHANNELS_LAST, torch.float32, torch.channels_last),
        (Setting("", "eager", "bf16", "channels_last"), torch.bfloat16, torch.channels_last),
    ],
)
def test_the_input_of_modules_has_the_dtype_and_layout_of_the_setting(
    setting: Setting, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x, gradient = module_inputs((2, 16, 6, 5), setting, CPU)
    for tensor in (x, gradient):
        assert tensor.shape == (2, 16, 6, 5)
        assert tensor.dtype == dtype
        assert tensor.is_contiguous(memory_format=layout)
    assert x.is_leaf
    assert x.requires_grad
    assert not gradient.requires_grad
    assert not torch.equal(x, gradient)
    again, _ = module_inputs((2, 16, 6, 5), setting, CPU)
    assert torch.equal(x, again)


def test_a_module_is_built_for_the_channels_of_its_input_and_reproducibly() -> None:
    first, second = (workload_of(lambda channels: ATTENTION["se"](channels), channels=24) for _ in range(2))
    states = [workload.module.state_dict() for workload in (first, second)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert first.module(torch.ones(1, 24, 3, 3)).shape == (1, 24, 3, 3)
    assert first.module.training


@settings(max_examples=25)
@given(
    st.tuples(*(st.integers(1, 5) for _ in range(4))),
    st.sampled_from([EAGER, BF16, CHANNELS_LAST]),
)
def test_a_copy_is_equal_and_in_other_memory_forward_and_backward(shape: tuple[int, ...], setting: Setting) -> None:
    x, gradient = module_inputs(shape, setting, CPU)
    y = Copy()(x)
    (reached,) = torch.autograd.grad(y, x, gradient)
    for copied, original in ((y, x), (reached, gradient)):
        assert torch.equal(copied, original)
        assert copied.dtype == original.dtype
        assert copied.stride() == original.stride()
        assert copied.data_ptr() != original.data_ptr()


def test_a_copy_saves_no_activations_and_eager_shuffle_attention_two_feature_maps() -> None:
    def by_torch(channels: int) -> nn.Module:
        return ShuffleAttention(channels, 4, fused="off")

    assert workload_of(lambda _: Copy()).saved_bytes() == 0
    elements = 2 * 16 * 6 * 5
    assert 4 * 2 * elements <= workload_of(by_torch).saved_bytes() <= 4 * 3 * elements
    assert workload_of(by_torch, BF16).saved_bytes() < workload_of(by_torch).saved_bytes()
    assert workload_of(sa).saved_bytes() <= workload_of(by_torch).saved_bytes()


def test_the_persistent_tensors_of_a_module_are_parameters_and_buffers() -> None:
    kept = workload_of(nn.BatchNorm2d).persistent()
    assert sum(tensor.numel() for tensor in kept) == 4 * 16 + 1


# Networks.


def variant_of(*overrides: str) -> Variant:
    config = compose_config(["device=cpu", "sweep=rivals", "sweep.factors.attention=[sa]", *overrides])
    return next(variant for variant in make_design(config).variants if variant.attention["name"] == "sa")


PLAIN = Candidate.baseline("none", RESNET8)
VARIANT = Candidate.of_variant(variant_of())
OFFICIAL = Candidate.of_class("official", OfficialShuffleAttention, 4)


def network(candidate: Candidate, setting: Setting = EAGER, classes: int = 10) -> tuple[Workload, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels, labels = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([3, 7])
    return network_workload(candidate, RESNET8, pixels, labels, classes, setting), labels


def state_of(workload: Workload) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in workload.module.state_dict().items()}


@pytest.mark.parametrize("candidate", [PLAIN, VARIANT, OFFICIAL], ids=["plain", "variant", "official"])
def test_a_training_step_changes_every_weight_and_inference_none(candidate: Candidate) -> None:
    workload, _ = network(candidate)
    before = state_of(workload)
    workload.module.eval()
    workload.acts[FORWARD]()
    assert all(torch.equal(tensor, before[name]) for name, tensor in workload.module.state_dict().items())
    workload.module.train()
    for _ in range(2):  # the norm of shuffle attention has no gradient until the gate's weight differs from 0
        workload.acts[STEP]()
    unchanged = [name for name, value in workload.module.named_parameters() if torch.equal(value, before[name])]
    assert unchanged == []
    assert all(parameter.grad is None for parameter in workload.module.parameters())


@pytest.mark.parametrize("setting", [EAGER, BF16, CHANNELS_LAST], ids=["fp32", "bf16", "channels_last"])
def test_a_training_step_equals_that_of_the_learner(setting: Setting) -> None:
    workload, labels = network(VARIANT, setting)
    recipe = TrainConfig(precision=setting.precision, memory_format=setting.layout)
    assert VARIANT.network is not None
    learner = Learner(VARIANT.network, recipe, 10, 0, CPU)
    for _ in range(2):
        workload.acts[STEP]()
        learner.step(workload.x, labels)
    expected = learner.model.state_dict()
    assert workload.module.state_dict().keys() == expected.keys()
    for name, tensor in workload.module.state_dict().items():
        assert torch.equal(tensor, expected[name])
    convolution = workload.module.get_submodule("layer2.0.conv1")
    assert isinstance(convolution, nn.Conv2d)
    layout = torch.channels_last if setting == CHANNELS_LAST else torch.contiguous_format
    assert convolution.weight.is_contiguous(memory_format=layout)


def test_inference_has_the_precision_of_the_setting() -> None:
    for setting, dtype in ((EAGER, torch.float32), (BF16, torch.bfloat16)):
        workload, _ = network(PLAIN, setting)
        outputs: list[Tensor] = []
        layer = workload.module.get_submodule("layer1")
        layer.register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output))
        workload.acts[FORWARD]()
        assert [(output.dtype, output.is_inference()) for output in outputs] == [(dtype, True)]


def test_networks_with_attention_have_the_weights_of_the_plain_one() -> None:
    plain, _ = network(PLAIN)
    expected = build_network(plain_network(RESNET8), 10, 0).state_dict()
    assert state_of(plain).keys() == expected.keys()
    for candidate in (PLAIN, VARIANT, OFFICIAL):
        state = state_of(network(candidate)[0])
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_the_number_of_logits_is_the_number_of_classes() -> None:
    workload, _ = network(PLAIN, classes=1000)
    assert workload.module(workload.x).shape == (2, 1000)


def test_a_third_party_class_is_inserted_at_every_insertion_point() -> None:
    workload, _ = network(OFFICIAL)
    points = find_backbone("resnet8").insertion_points()
    attended = [workload.module.get_submodule(point.path) for point in points]
    assert [type(module) for module in attended] == [OfficialShuffleAttention] * 3
    assert [module.cweight.shape[1] * 8 for module in attended] == [point.channels for point in points]  # type: ignore[union-attr, index]


def test_attention_is_at_the_insertion_points_of_the_variant() -> None:
    workload, _ = network(Candidate.of_variant(variant_of("attention.stages=last")))
    paths = [name for name, module in workload.module.named_modules() if isinstance(module, ShuffleAttention)]
    assert paths == ["layer3.0.sa"]


def test_networks_with_attention_save_more_activations_than_the_plain_one() -> None:
    plain, attended, official = (network(each)[0].saved_bytes() for each in (PLAIN, VARIANT, OFFICIAL))
    assert plain < attended <= official
    assert network(PLAIN, BF16)[0].saved_bytes() < plain


def test_the_first_step_adds_the_optimizer_state_to_the_persistent_tensors() -> None:
    workload, _ = network(VARIANT)
    before = sum(tensor.numel() for tensor in workload.persistent())
    workload.acts[STEP]()
    after = sum(tensor.numel() for tensor in workload.persistent())
    assert after - before == sum(parameter.numel() for parameter in workload.module.parameters())  # momentum


@pytest.mark.parametrize("compiled", ["eager", "compiled"])
def test_a_network_is_compiled_for_inference_and_training_on_request(
    compiled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: list[nn.Module] = []

    def record(module: nn.Module, **_: object) -> nn.Module:
        modules.append(module)
        return module

    monkeypatch.setattr(torch, "compile", record)  # real compilation takes minutes on a CPU
    workload, _ = network(PLAIN, Setting("", compiled, "fp32", "contiguous"))
    assert modules == ([workload.module] * 2 if compiled == "compiled" else [])


def test_a_rebuilt_compiled_network_is_not_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.compile
    # The backend `eager` traces without generating code, which would take seconds.
    monkeypatch.setattr(torch, "compile", lambda module, **_: compiler(module, backend="eager", dynamic=False))
    graphs = torch._dynamo.utils.counters["stats"]
    setting = Setting("", "compiled", "fp32", "contiguous")
    traced = []
    for candidate in (PLAIN, VARIANT, PLAIN, VARIANT):
        workload, _ = network(candidate, setting)
        workload.acts[STEP]()
        traced.append(graphs["unique_graphs"])
    assert traced[0] < traced[1] == traced[2] == traced[3]


class KnowsCompilation(nn.Module):
    """Multiplies its input by 2, and by 4 if it is compiled."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * 4 if torch.compiler.is_compiling() else x * 2


def test_a_module_is_compiled_on_request() -> None:
    for compiled, factor in (("eager", 2), ("compiled", 4)):
        setting = Setting("", compiled, "fp32", "contiguous")
        x, gradient = module_inputs((1, 2, 3, 4), setting, CPU)
        workload = module_workload(KnowsCompilation, x, gradient, setting)
        torch.testing.assert_close(caught_gradients(workload), {"x": gradient * factor})
        assert isinstance(workload.module, KnowsCompilation)  # costs are those of the module itself


# Candidates.


def test_a_third_party_candidate_is_called_with_groups_only_if_it_has_the_parameter() -> None:
    assert OFFICIAL.network is None
    for groups, expected in ((8, 8), (None, 64)):
        module = Candidate.of_class("official", OfficialShuffleAttention, groups).make(128)
        assert isinstance(module, OfficialShuffleAttention)
        assert module.groups == expected
    norm = Candidate.of_class("norm", nn.BatchNorm2d, 8).make(128)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.num_features == 128


def test_the_candidate_of_a_variant_has_its_module_and_network() -> None:
    variant = variant_of("attention.stages=last", "attention.position=pre", "attention.gate=tanh1")
    candidate = Candidate.of_variant(variant)
    module = candidate.make(64)
    assert isinstance(module, ShuffleAttention)
    assert (module.groups, module.knobs.gate) == (4, "tanh1")
    assert (candidate.name, candidate.network) == (variant.name, variant.network)
