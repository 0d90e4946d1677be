"""Common uses of a module: compile, script, trace, quantize, export, train in several processes, copy, save."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.feature_extraction import create_feature_extractor

from sa_core import ShuffleAttention, SpatialGroupEnhance, create_model
from tests.sa_core.helpers import noise, randomised, variants

CASES: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "official": (ShuffleAttention, {"groups": 4}),
    "convolution, random order": (
        ShuffleAttention,
        {"groups": 4, "transform": "conv1x1", "permutation": "random"},
    ),
    "batch norm": (ShuffleAttention, {"groups": 4, "norm": "batch"}),
    "clamp": (ShuffleAttention, {"groups": 64, "groups_policy": "clamp", "norm": "layer", "gate": "tanh1"}),
    "channel gate on all": (
        ShuffleAttention,
        {"groups": 2, "branches": "channel", "removed": "reassign", "pooling": "avg_max", "gate": "hard_sigmoid"},
    ),
    "sge": (SpatialGroupEnhance, {"groups": 4}),
}
every_case = pytest.mark.parametrize("case", CASES)
needs_a_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


def make(case: str) -> nn.Module:
    torch.manual_seed(0)
    kind, knobs = CASES[case]
    return randomised(kind(16, **knobs))


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_compiled_gives_equal_results(module: nn.Module, x: Tensor, backend: str) -> None:
    """Compares output, gradients and the buffers after a training step."""
    twin = copy.deepcopy(module)
    compiled = torch.compile(twin, fullgraph=True, backend=backend)
    results = []
    for function in (module, compiled):
        leaf = x.clone().requires_grad_()
        out = function(leaf)
        (out * noise(*out.shape, seed=9)).sum().backward()
        results.append((out.detach(), leaf.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    for (name, parameter), compiled_parameter in zip(module.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(
            compiled_parameter.grad, parameter.grad, rtol=1e-3, atol=1e-3, msg=f"{name} has another gradient"
        )
    torch.testing.assert_close(dict(twin.named_buffers()), dict(module.named_buffers()))


@pytest.mark.usefixtures("fresh_compiler")
@every_case
def test_a_module_compiled_in_one_graph_gives_equal_results(case: str) -> None:
    assert_compiled_gives_equal_results(make(case), noise(3, 16, 6, 6), "aot_eager")


@needs_a_compiler
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("case", ["official", "sge"])
def test_a_module_compiled_to_machine_code_gives_equal_results(case: str) -> None:
    x = noise(3, 16, 6, 6).contiguous(memory_format=torch.channels_last)
    assert_compiled_gives_equal_results(make(case), x, "inductor")


@pytest.mark.usefixtures("fresh_compiler")
def test_a_network_compiled_in_one_graph_gives_equal_results() -> None:
    model = create_model("resnet8", attention="sa", groups=4, seed=0)
    assert_compiled_gives_equal_results(model, noise(4, 3, 16, 16), "aot_eager")


@every_case
def test_an_export_with_dynamic_batch_size_gives_equal_results(case: str) -> None:
    module = make(case).eval()
    program = torch.export.export(
        module, (noise(3, 16, 6, 6),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    ).module()
    for batch in (1, 2, 5):
        x = noise(batch, 16, 6, 6, seed=batch)
        torch.testing.assert_close(program(x), module(x))


@every_case
def test_an_onnx_export_gives_equal_results(case: str, tmp_path: Path) -> None:
    module = make(case).eval()
    program = torch.onnx.export(
        module,
        (noise(3, 16, 6, 6),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        verbose=False,
    )
    assert program is not None
    program.save(str(tmp_path / "module.onnx"))
    session = onnxruntime.InferenceSession(tmp_path / "module.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 5):
        x = noise(batch, 16, 6, 6, seed=batch)
        (out,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(out, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


deprecated = pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:FutureWarning")


@deprecated
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # about the class of torch.fx's graphs
@settings(max_examples=60)
@given(variants())
def test_any_scripted_or_symbolically_traced_variant_gives_equal_results(case: dict[str, Any]) -> None:
    torch.manual_seed(case["seed"])
    module = randomised(ShuffleAttention(case["shape"][1], **case["knobs"], dtype=torch.float64), case["seed"]).eval()
    x = noise(*case["shape"], seed=case["seed"], dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last) if case["channels_last"] else x
    graph = torch.fx.symbolic_trace(module)
    assert [node.op for node in graph.graph.nodes].count("placeholder") == 1
    for captured in (torch.jit.script(module), graph, torch.jit.script(graph)):
        out = captured(x)
        torch.testing.assert_close(out, module(x))
        assert out.is_contiguous(memory_format=torch.channels_last) or not case["channels_last"]


NETWORKS: dict[str, dict[str, Any]] = {
    "resnet8": {"groups": "auto"},
    "resnet8, fused blocks": {"groups": "auto", "fused_block": True},
    "resnet8, after the addition": {"groups": "auto", "position": "post"},
    "resnet18, before the block": {"groups": "auto", "position": "pre"},
    "resnet50": {"stages": "3+4"},
    "shufflenet_v2_x0_5, on the shortcut": {"groups": "auto", "position": "shortcut"},
    "timm/resnet26": {},
}


def network(case: str) -> tuple[nn.Module, Tensor]:
    """A network with attention whose gates are not constant, and input images."""
    name = case.partition(",")[0]
    model = create_model(name, attention="sa", seed=0, **NETWORKS[case]).eval()
    for module in model.modules():
        if isinstance(module, ShuffleAttention):
            randomised(module)
    return model, noise(2, 3, *[16 if name == "resnet8" else 64] * 2)


@deprecated
@pytest.mark.parametrize("case", NETWORKS)
def test_a_scripted_traced_or_exported_network_gives_equal_results(case: str) -> None:
    model, x = network(case)
    expected = model(x)
    scripted, graph = torch.jit.script(model), torch.fx.symbolic_trace(model)
    steps = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    insertion_points = [path for path, module in model.named_modules() if isinstance(module, ShuffleAttention)]
    assert insertion_points
    assert set(insertion_points) <= set(steps)  # each module is one step, so kernels can compute it
    for captured in (scripted, graph, torch.export.export(model, (x,)).module()):
        torch.testing.assert_close(captured(x), expected, rtol=1e-4, atol=1e-4)


@deprecated
def test_torchvision_extracts_the_output_of_attention() -> None:
    model, x = network("resnet8")
    outputs: list[Tensor] = []
    handle = model.get_submodule("layer2.0.sa").register_forward_hook(lambda _module, _inputs, out: outputs.append(out))
    model(x)
    handle.remove()
    extractor = create_feature_extractor(model, ["layer2.0.sa", "layer3"])
    for captured in (extractor, torch.jit.script(extractor)):
        found = captured(x)
        torch.testing.assert_close(found["layer2.0.sa"], outputs[0])
        assert found["layer3"].shape == (2, 64, 4, 4)


@pytest.mark.parametrize("case", ["resnet8", "resnet8, fused blocks"])
@pytest.mark.filterwarnings("ignore")
def test_a_network_can_be_quantized_in_fx_graph_mode(case: str) -> None:
    quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx", reason="this torch has no FX graph mode")
    from torch.ao.quantization import get_default_qconfig_mapping

    model, x = network(case)
    prepared = quantize_fx.prepare_fx(model, get_default_qconfig_mapping(), (x,))
    prepared(x)
    quantised = quantize_fx.convert_fx(prepared)
    assert isinstance(quantised.get_submodule("layer2.0.sa"), ShuffleAttention)
    assert not isinstance(quantised.get_submodule("layer2.0.conv1"), nn.Conv2d)
    expected = model(x)
    assert (quantised(x) - expected).abs().max() < 0.3 * expected.abs().max()


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_module_trains_in_the_type_of_its_input_under_autocast(case: str, dtype: torch.dtype) -> None:
    module, x = make(case), noise(3, 16, 6, 6).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x)
    assert out.dtype == dtype
    out.sum().backward()
    for value in (x, *module.parameters()):
        assert value.grad is not None
        assert value.grad.dtype == value.dtype
        assert value.grad.isfinite().all()


@every_case
def test_channels_last_is_kept_with_equal_results(case: str) -> None:
    module, x = make(case).eval(), noise(3, 16, 6, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    out = module.to(memory_format=torch.channels_last)(last)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, module(x))


@every_case
def test_a_copy_is_equal_and_independent(case: str) -> None:
    module, x = make(case).eval(), noise(3, 16, 6, 6)
    before = module(x).detach().clone()
    twin = copy.deepcopy(module)
    randomised(module, seed=7)
    assert torch.equal(twin(x), before)
    assert not torch.equal(module(x), before)


@every_case
def test_a_saved_and_loaded_module_gives_equal_results(case: str, tmp_path: Path) -> None:
    module, x = make(case).eval(), noise(3, 16, 6, 6)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    kind, knobs = CASES[case]
    twin = kind(16, **knobs).eval()
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    assert torch.equal(twin(x), module(x))
    torch.save(module, tmp_path / "module.pt")
    whole = torch.load(tmp_path / "module.pt", weights_only=False)
    assert torch.equal(whole(x), module(x))


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def train_in_parallel(model: nn.Module) -> None:
    """Trains two steps: an unused parameter in the first makes the second fail."""
    parallel = DistributedDataParallel(model, find_unused_parameters=False)
    optimiser = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], 0.01)
    for step in range(2):
        optimiser.zero_grad()
        parallel(noise(2, 3, 16, 16, seed=step)).square().sum().backward()
        optimiser.step()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize(
    ("attention", "knobs"),
    [
        ("sa", {}),
        ("sa", {"branches": "channel"}),
        ("sa", {"branches": "spatial"}),
        ("sa", {"branches": "none"}),
        ("sa", {"branches": "channel", "removed": "reassign", "pooling": "max"}),
        ("sa", {"branches": "spatial", "removed": "reassign", "norm": "group:2"}),
        ("sa", {"transform": "conv1x1", "permutation": "random"}),
        ("sa", {"transform": "affine_channel", "norm": "batch", "shuffle": False}),
        ("sa", {"transform": "none", "norm_affine": False, "gate": "none"}),
        ("sa", {"groups": 64, "groups_policy": "clamp", "norm": "none"}),
        ("sge", {}),
        ("frozen", {}),
        ("se_matched", {}),
        ("cbam", {}),
    ],
)
def test_a_module_trains_in_parallel_without_find_unused_parameters(attention: str, knobs: dict[str, Any]) -> None:
    defaults = {"groups": 4} if attention in ("sa", "sge", "frozen", "se_matched") else {}
    train_in_parallel(create_model("resnet8", attention=attention, seed=0, **(defaults | knobs)))


@pytest.mark.usefixtures("process_group")
def test_training_in_parallel_detects_an_unused_parameter() -> None:
    model = create_model("resnet8", seed=0)
    model.unused = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        train_in_parallel(model)
