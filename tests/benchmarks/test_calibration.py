"""Whether speeds can be believed: `pytest tests/benchmarks/test_calibration.py -s`.

A hundred comparisons of a module with another copy of itself should call a difference in 7 at the most, and ten of a
module with one that does a tenth more of the same work should see it in 9 at least. Nothing is asserted: what comes of
it belongs to the machine. What the method does on simulated machines is tested in tests/ablations/measure.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from ablations.common.process import keep_freed_memory
from ablations.measure.speed import TWIN, Act, compare, wall_clock
from sa_core import ATTENTION

SMALL = {"sa": {"groups": 8}, "se": {}, "sge": {"groups": 8}, "eca": {}}
SECONDS = 0.5  # for a comparison


class Repeated(nn.Module):
    """A module that does the same work so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.sigmoid(x)
        return x


def act_of(module: nn.Module, x: Tensor) -> Act:
    def act() -> None:
        with torch.inference_mode():
            module(x)

    return act


def verdicts(make: Callable[[], nn.Module], other: Callable[[], nn.Module], x: Tensor, count: int) -> list[str]:
    keep_freed_memory()  # as `bench` does
    found = []
    for seed in range(count):
        acts = {"plain": act_of(make(), x), TWIN: act_of(make(), x), "other": act_of(other(), x)}
        found.append(compare(acts, "plain", wall_clock, seconds=SECONDS, seed=seed).timing("other").verdict)
    return found


@pytest.mark.parametrize("name", SMALL)
def test_a_module_against_itself(benchmark: BenchmarkFixture, name: str) -> None:
    x = torch.randn(8, 64, 16, 16)

    def make() -> nn.Module:
        return ATTENTION[name](64, **SMALL[name]).eval()

    found = benchmark.pedantic(lambda: verdicts(make, make, x, 25), rounds=1)
    wrong = sum(verdict != "no difference seen" for verdict in found)
    benchmark.extra_info["differences called"] = wrong
    print(f"\n{name} against itself: a difference is called in {wrong} of {len(found)} comparisons")


@pytest.mark.parametrize("size", [2**12, 2**16, 2**20])
def test_a_module_against_one_that_does_a_tenth_more(benchmark: BenchmarkFixture, size: int) -> None:
    x = torch.randn(size)
    found = benchmark.pedantic(lambda: verdicts(lambda: Repeated(10), lambda: Repeated(11), x, 10), rounds=1)
    seen = found.count("slower")
    benchmark.extra_info["slowdowns seen"] = seen
    print(f"\na tenth more work on {size:,} numbers: seen in {seen} of {len(found)} comparisons")
