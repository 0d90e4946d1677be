"""Time and memory of `run` (with nothing to do) and `analyze` with 10,000 finished cells: `pytest -s` prints them.

Studies come from `tests.builders.big_studies`; commands are measured in separate processes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.builders.big_studies import BigStudy, make_big_study

_BIASES = ",".join(str(number / 32) for number in range(256))
SHAPES = {
    "5 variants x 2,000 replicates": ("replicates=2000",),
    "1,025 variants x 10 replicates": (
        "replicates=10",
        "study=crossed",
        f"sweep.factors={{attention: {{groups: [1,2,4,8], gate_bias: [{_BIASES}]}}}}",
    ),
}
SCRIPT = """
import re, runpy, sys, time
sys.argv = [f"ablations.{sys.argv[1]}", *sys.argv[2:]]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
print("cpu", time.process_time(), "peak", peak)
"""


@pytest.fixture(scope="module", params=SHAPES)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, BigStudy]:
    folder: Path = tmp_path_factory.mktemp("big")
    return request.param, make_big_study(folder, *SHAPES[request.param])


@pytest.mark.parametrize("verb", ["run", "analyze"])
def test_ten_thousand_finished_cells(study: tuple[str, BigStudy], verb: str) -> None:
    shape, stored = study
    started = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, verb, *stored.overrides], capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    assert process.returncode == 0, process.stderr
    _, cpu, _, peak = process.stdout.split()[-4:]
    print(f"\n{shape}: {verb} takes {seconds:.1f} s ({float(cpu):.1f} s of the processor), {peak} MiB at most")
    assert int(peak) <= 1024
