from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablations.measure.energy import Done, energy_counter, joules_per_call, joules_per_image

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 1)


class FakeGpu:
    """A simulated GPU with a queue and a clock.

    Args:
        watts: power at work; idle power is a tenth of it.
        call: seconds of a call on the device.
        step: update interval of the energy counter, in seconds.
        host: seconds to queue a call.
        depth: capacity of the queue; further calls wait until the oldest is complete.
        look: seconds to read the counter.
    """

    def __init__(
        self,
        watts: float = 300.0,
        call: float = 0.002,
        host: float = 1e-5,
        depth: int = 1000,
        look: float = 2e-4,
        step: float = 0.1,
    ) -> None:
        self.watts, self.call, self.host, self.depth, self.look, self.step = watts, call, host, depth, look, step
        self.now, self.free_at, self.calls = 0.0, 0.0, 0
        self.idle: list[tuple[float, float]] = []

    def act(self) -> None:
        self.now = max(self.now + self.host, self.free_at - self.depth * self.call)
        if self.now > self.free_at:
            self.idle.append((self.free_at, self.now))
        self.free_at = max(self.free_at, self.now) + self.call
        self.calls += 1

    def mark(self) -> Done:
        until = self.free_at
        return lambda: self.now >= until

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def joules(self) -> float:
        self.now += self.look
        told = self.now // self.step * self.step
        rests = [*self.idle, (self.free_at, max(told, self.free_at))]
        rested = sum(max(0.0, min(end, told) - begin) for begin, end in rests)
        return self.watts * (told - 0.9 * rested)

    def measure(self, seconds: float = 3.0) -> float | None:
        return joules_per_call(self.act, self.joules, self.mark, seconds, self.clock, self.sleep)


@pytest.mark.parametrize(
    "gpu",
    [
        FakeGpu(),
        FakeGpu(call=0.6),  # longer than the update interval of the counter
        FakeGpu(call=3.7),  # longer than the window
        FakeGpu(call=5e-5),  # much shorter than reading the counter
        FakeGpu(call=0.002, depth=2),  # queueing waits
        FakeGpu(step=0.02),
        FakeGpu(look=0.003),
    ],
)
def test_joules_are_power_times_time_for_calls_of_any_duration(gpu: FakeGpu) -> None:
    assert gpu.measure() == pytest.approx(gpu.watts * gpu.call, rel=0.01)


@given(watts=st.floats(20, 1200), call=st.floats(3e-4, 1.5), step=st.floats(0.02, 0.11))
def test_joules_are_accurate_to_one_percent(watts: float, call: float, step: float) -> None:
    assert FakeGpu(watts=watts, call=call, step=step).measure() == pytest.approx(watts * call, rel=0.01)


def test_the_gpu_does_not_idle_during_the_measurement() -> None:
    gpu = FakeGpu()
    gpu.measure()
    measured_from = gpu.now - 3.0
    assert sum(end - begin for begin, end in gpu.idle if end > measured_from) == 0.0


def test_with_a_slow_host_a_call_includes_idle_energy() -> None:
    gpu = FakeGpu(call=1e-4, host=4e-4, look=1e-6)
    assert gpu.measure() == pytest.approx(300 * 1e-4 + 30 * 3e-4, rel=0.01)


def test_a_slow_first_call_does_not_change_the_result() -> None:
    gpu = FakeGpu(call=5.0)

    def act() -> None:
        gpu.act()
        gpu.call = 1e-3

    assert joules_per_call(act, gpu.joules, gpu.mark, 3.0, gpu.clock, gpu.sleep) == pytest.approx(0.3, rel=0.01)


def test_the_window_has_the_requested_length() -> None:
    short, long = FakeGpu(), FakeGpu()
    short.measure(1.0)
    long.measure(6.0)
    assert long.now - short.now == pytest.approx(5, abs=0.2)


def test_a_counter_that_does_not_change_gives_none() -> None:
    gpu = FakeGpu()
    assert joules_per_call(gpu.act, lambda: 7.0, gpu.mark, 3.0, gpu.clock, gpu.sleep) is None
    assert gpu.now < 2
    assert gpu.now >= gpu.free_at  # the queue is empty


class NotSupportedError(Exception):
    pass


def fake_nvml(monkeypatch: pytest.MonkeyPatch, energy: Callable[[str], int]) -> None:
    """Replaces `pynvml` with a module whose handles are UUIDs; the second CUDA device has the UUID 12ab."""
    module = cast(Any, types.ModuleType("pynvml"))
    module.NVMLError = NotSupportedError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    module.nvmlDeviceGetTotalEnergyConsumption = energy
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "get_device_properties", {CUDA: types.SimpleNamespace(uuid="12ab")}.__getitem__)


def test_the_counter_is_that_of_torchs_device(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch, {"GPU-12ab": 4500}.__getitem__)
    joules = energy_counter(CUDA)
    assert joules is not None
    assert joules() == 4.5


def test_a_gpu_without_an_energy_counter_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uuid: str) -> int:
        raise NotSupportedError(uuid)

    fake_nvml(monkeypatch, refuse)
    assert energy_counter(CUDA) is None
    assert joules_per_image(pytest.fail, 8, CUDA) is None


def test_without_nvml_there_is_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy_counter(CUDA) is None


def test_a_cpu_has_no_counter() -> None:
    assert joules_per_image(pytest.fail, 8, CPU) is None


@pytest.mark.cuda
def test_the_energy_per_image_hardly_depends_on_the_number_of_images() -> None:
    device = torch.device("cuda")
    if energy_counter(device) is None:
        pytest.skip("this GPU does not count its energy")
    x = torch.rand(4096, 4096, device=device)
    one = joules_per_image(lambda: x @ x, 1, device)
    two = joules_per_image(lambda: (x @ x, x @ x), 2, device)
    assert one is not None
    assert one > 0
    assert two == pytest.approx(one, rel=0.15)
