"""What the fused operator costs, as ratios within one run: modules beside a copy of their map and beside the official
formulation, networks with shuffle attention beside plain ones.

    pytest -s tests/benchmarks/test_fused.py
    DEVICE=cuda pytest -s tests/benchmarks/test_fused.py

Gates are random: with the weights that they start from, every gate is a constant. Nothing is asserted about time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ablations.benchmarking.workloads import BACKWARD, FORWARD, Copy, Make, module_inputs, module_workload
from ablations.common.process import keep_freed_memory
from ablations.config import TrainConfig
from ablations.measure.record import Setting
from ablations.measure.speed import Act, clock_of, compare
from ablations.training.learner import forward
from sa_core import ShuffleAttention, create_model
from tests.sa_core.official import OfficialShuffleAttention

SHAPES = {
    (32, 256, 56, 56): 64,
    (32, 512, 28, 28): 64,
    (32, 1024, 14, 14): 64,
    (128, 64, 32, 32): 8,
    (128, 32, 16, 16): 8,
}
DEVICE = torch.device(os.environ.get("DEVICE", "cpu"))
SECONDS = float(os.environ.get("SECONDS", "8"))  # a comparison
TIMES = 3
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def random_gates(module: nn.Module) -> nn.Module:
    """Draws what shuffle attention learns, wherever in a module it stands."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (ShuffleAttention, OfficialShuffleAttention)):
                for parameter in part.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def show(what: str, acts: Mapping[str, Act], baseline: str) -> None:
    """Compares so many times, and prints the median ratios of each time with their 95 % CIs."""
    makes = {name: partial(_same, act) for name, act in acts.items()}
    runs = [compare(makes, baseline, clock_of(DEVICE), seconds=SECONDS, seed=seed) for seed in range(TIMES)]
    for name in acts:
        if name != baseline:
            ratios = [run.ratio(name) for run in runs]
            text = ", ".join(f"{ratio:.3f} [{low:.3f} {high:.3f}]" for ratio, low, high in ratios)
            generations = ", ".join(str(run.copies) for run in runs)
            print(f"{what}: {name} / {baseline}: {text} (n = {generations} generations)")


def _same(act: Act) -> Act:
    return act


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_run() -> None:
    if DEVICE.type == "cpu":
        keep_freed_memory()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_module(shape: tuple[int, ...], precision: str, layout: str) -> None:
    groups = SHAPES[shape]
    makes: dict[str, Make] = {
        "copy": lambda _: Copy(),
        "sa": lambda channels: random_gates(ShuffleAttention(channels, groups)),
        "official": lambda channels: random_gates(OfficialShuffleAttention(channels, groups)),
    }
    for mode in (FORWARD, BACKWARD):
        setting = Setting(mode, "eager", precision, layout)
        inputs = module_inputs(list(shape), setting, DEVICE)
        acts = {name: module_workload(make, *inputs, setting).acts[mode] for name, make in makes.items()}
        title = f"{'x'.join(map(str, shape))} {precision} {layout} {mode}"
        show(title, acts, "copy")
        show(title, {name: acts[name] for name in ("sa", "official")}, "official")


NETWORKS: dict[str, dict[str, object]] = {
    "plain": {},
    "plain, fused blocks": {"fused_block": True},
    "sa by torch": {"attention": "sa", "fused": "off"},
    "sa": {"attention": "sa"},
    "sa, fused blocks": {"attention": "sa", "fused_block": True},
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_inference_of_resnet50(precision: str, layout: str) -> None:
    recipe = TrainConfig(precision=precision, memory_format=layout)
    images = torch.randn(8, 3, 224, 224, device=DEVICE)

    def act(options: dict[str, object]) -> Act:
        model = random_gates(create_model("resnet50", num_classes=1000, seed=0, **options))  # type: ignore[arg-type]
        model = model.eval().to(DEVICE).to(memory_format=FORMATS[layout])

        def run() -> None:
            with torch.inference_mode():
                forward(model, recipe, images)

        return run

    acts = {name: act(options) for name, options in NETWORKS.items()}
    show(f"ResNet-50 inference, 8 images, {precision} {layout}", acts, "plain")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_of_resnet20(precision: str, layout: str) -> None:
    recipe = TrainConfig(precision=precision, memory_format=layout)
    images, labels = torch.randn(128, 3, 32, 32, device=DEVICE), torch.randint(10, (128,), device=DEVICE)

    def act(options: dict[str, object]) -> Act:
        knobs = {"groups": 8} if "attention" in options else {}
        model = random_gates(create_model("resnet20", seed=0, **options, **knobs)).train()  # type: ignore[arg-type]
        model = model.to(DEVICE).to(memory_format=FORMATS[layout])
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, nesterov=True, fused=True)

        def step() -> None:
            F.cross_entropy(forward(model, recipe, images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    acts = {name: act(options) for name, options in NETWORKS.items()}
    show(f"ResNet-20 training step, 128 images, {precision} {layout}", acts, "plain")
