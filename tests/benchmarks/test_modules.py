"""Times of the attention modules, to compare before and after a change.

    pytest tests/benchmarks/test_modules.py --benchmark-autosave          # before
    pytest tests/benchmarks/test_modules.py --benchmark-compare           # after

For comparisons between modules use `python -m ablations.bench`.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from ablations.benchmarking.workloads import BACKWARD, FORWARD, Copy, Make, module_inputs, module_workload
from ablations.common.process import keep_freed_memory
from ablations.measure.record import Setting
from sa_core import ATTENTION
from tests.sa_core.official import OfficialShuffleAttention

SHAPES = {  # of ResNet-50's first three stages, and of two stages of a CIFAR ResNet, with groups
    "stage1": (8, 256, 56, 56, 64),
    "stage2": (8, 512, 28, 28, 64),
    "stage3": (8, 1024, 14, 14, 64),
    "wide": (32, 64, 32, 32, 8),
    "narrow": (32, 32, 16, 16, 8),
}
MODULES = ("copy", "sa", "official")


def make(name: str, groups: int) -> Make:
    if name == "copy":
        return lambda _: Copy()
    if name == "official":
        return lambda channels: OfficialShuffleAttention(channels, groups)
    return lambda channels: ATTENTION[name](channels, groups=groups)


@pytest.mark.parametrize("mode", [FORWARD, BACKWARD])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", MODULES)
def test_module(benchmark: BenchmarkFixture, name: str, shape: str, mode: str) -> None:
    keep_freed_memory()  # as training does
    *sizes, groups = SHAPES[shape]
    setting = Setting(mode, "eager", "fp32", "contiguous")
    workload = module_workload(make(name, groups), *module_inputs(sizes, setting, torch.device("cpu")), setting)
    benchmark.group = f"{shape}, {mode}"
    benchmark(workload.acts[mode])
