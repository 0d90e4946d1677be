from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from ablations.common import load
from ablations.common.load import LoadMeter

BUSY = "while True: pass"


def test_what_this_process_and_its_children_use_is_not_the_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    family = [0.0]

    def times(percpu: bool) -> list[object]:
        assert percpu
        total = type(psutil.cpu_times())
        return [total(*([family[0] + used] + [0.0] * (len(total._fields) - 1))) for used in (0.0, 100.0)]

    monkeypatch.setattr(load, "allowed_cores", lambda: [0])
    monkeypatch.setattr(psutil, "cpu_times", times)
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        meter = LoadMeter()
        before = sum(psutil.Process(child.pid).cpu_times()[:2])
        while sum(psutil.Process(child.pid).cpu_times()[:2]) - before < 0.3:
            time.sleep(0.05)
        family[0] = 0.3  # seconds that the core was busy, with the child
        found = meter.cores_of_others()
        child.kill()
    assert found == pytest.approx(0.0, abs=1e-9)


def test_the_load_of_others_is_in_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, busy = [10.0], [5.0]
    monkeypatch.setattr(load.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(load, "allowed_cores", lambda: [0, 1])
    total = type(psutil.cpu_times())
    rest = [0.0] * (len(total._fields) - 1)

    def times(percpu: bool) -> list[object]:
        return [total(*[busy[0], *rest])] * 3 if percpu else []  # of which two are ours

    monkeypatch.setattr(psutil, "cpu_times", times)
    meter = LoadMeter()
    own = sum(psutil.Process().cpu_times()[:2])
    clock[0], busy[0] = 12.0, 6.5
    found = meter.cores_of_others()
    spent = sum(psutil.Process().cpu_times()[:2]) - own
    assert found == pytest.approx(1.5, abs=spent + 0.05)


def test_after_no_time_at_all_the_load_is_not_known() -> None:
    assert LoadMeter().cores_of_others() != LoadMeter().cores_of_others()  # nan
