from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from ablations.common import load
from ablations.common.load import LoadMeter

SPENT = 0.3  # seconds of processor time of a child process


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The busy seconds of each of three cores, two of them allowed for this process, over a measurement of 2 s."""
    used, clock = [5.0], iter([10.0, 12.0])
    kind = type(psutil.cpu_times())

    def times(percpu: bool) -> list[object]:
        assert percpu
        return [kind(*[used[0], *[0.0] * (len(kind._fields) - 1)])] * 3

    with monkeypatch.context() as patch:
        patch.setattr(load, "allowed_cores", lambda: [0, 1])
        patch.setattr(load.time, "monotonic", lambda: next(clock))
        patch.setattr(psutil, "cpu_times", times)
        yield used


def test_the_load_of_other_processes_is_in_cores(busy: list[float]) -> None:
    meter = LoadMeter()
    before = sum(psutil.Process().cpu_times()[:2])
    busy[0] += 1.5
    cores = meter.cores_of_others()
    own = sum(psutil.Process().cpu_times()[:2]) - before
    assert cores == pytest.approx(1.5, abs=own + 0.05)


def test_the_processor_time_of_children_is_not_counted(busy: list[float]) -> None:
    code = f"import time\nwhile time.process_time() < {SPENT}: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            meter = LoadMeter()
            child.stdout.readline()
            busy[0] += 1.5
            cores = meter.cores_of_others()
        finally:
            child.kill()
    assert cores <= 1.5 - 0.8 * SPENT / 2


def test_the_load_is_nan_without_elapsed_time() -> None:
    assert math.isnan(LoadMeter().cores_of_others())
