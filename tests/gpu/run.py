"""Three calls of at most ten minutes that measure the project on a GPU; tests/gpu/README.md says how to use them.

    python -m tests.gpu.run 1                        # then 2, then 3
    python -m tests.gpu.run 1 --device cpu --tiny    # tests the script; its numbers are not results

A call has parts, each in a separate process with a time limit, and a part has tasks. A failure or timeout affects only
its own rows. All calls add to one page and one CSV, which have the reason for each quantity that was not measured.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.gpu.measuring import Options
from tests.gpu.results import CSV, PAGE, ROWS, append, page_of, read, write_csv

ROOT = Path(__file__).parents[2]
LONGEST = 600  # maximum seconds of a call
TRIED = 600.0  # time limit of a part in seconds when the script is tested, possibly on a busy machine
_GRACE = 10.0  # seconds for a part to end by itself after its limit


class Part(NamedTuple):
    """A part of a call: its name, the function that lists its tasks, and its time limit in seconds."""

    name: str
    tasks: str
    limit: float


CALLS: dict[int, tuple[Part, ...]] = {
    1: (
        Part("tests", "tests.gpu.suite:tests", 200),
        Part("kernels", "tests.gpu.kernels:tasks", 230),
        Part("study on digits", "tests.gpu.suite:digits", 120),
    ),
    2: (
        Part("steps of ResNet-50", "tests.gpu.networks:large", 150),
        Part("steps of ResNet-20", "tests.gpu.networks:small", 110),
        Part("cells an hour", "tests.gpu.suite:hourly", 130),
        Part("resumed", "tests.gpu.suite:resumed", 30),
        Part("energy", "tests.gpu.suite:bench", 50),
        Part("CIFAR-10", "tests.gpu.suite:cifar", 60),
    ),
    3: (
        Part("CIFAR-10, resumed", "tests.gpu.suite:cifar", 520),
        Part("MLflow", "tests.gpu.suite:mlflow", 30),
    ),
}


def make_call(call: int, options: Options) -> list[str]:
    """Makes a call and writes the page; returns the failures, one line each."""
    options.out.mkdir(parents=True, exist_ok=True)
    failures = []
    for part in CALLS[call]:
        print(f"\n=== call {call}: {part.name} (at most {part.limit:.0f} s)", flush=True)
        failures += _do(call, part, options)
        rows = read(options.out / ROWS)
        write_csv(rows, options.out / CSV)
        (options.out / PAGE).write_text(page_of(rows, _failures_of(options, failures)), encoding="utf-8")
    return failures


def _do(call: int, part: Part, options: Options) -> list[str]:
    """Runs a part in a separate process, and adds rows for the tasks that it did not reach."""
    limit = max(part.limit, TRIED) if options.tiny else part.limit
    command = [
        sys.executable, "-m", "tests.gpu.part", str(call), part.name, part.tasks, "--device", options.device,
        "--out", str(options.out), "--data", str(options.data), "--seconds", str(limit),
        *(["--tiny"] if options.tiny else []),
    ]  # fmt: skip
    begun = len(read(options.out / ROWS)), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    reason = ""
    try:
        if code := process.wait(limit + _GRACE):
            reason = f"not measured: the part ended with exit status {code}"
    except subprocess.TimeoutExpired:
        reason = f"not measured: the part ran out of time ({limit:g} s)"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(f"--- {part.name}: {time.monotonic() - begun[1]:.0f} s {reason}", flush=True)
    module, _, function = part.tasks.partition(":")
    there = {row.key for row in read(options.out / ROWS)}
    missing = [
        row
        for task in getattr(importlib.import_module(module), function)(options)
        for row in task.rows(call, part.name, {}, reason or "not measured: the part said nothing of it")
        if row.key not in there
    ]
    append(options.out / ROWS, missing)
    return [f"call {call}, {part.name}: {reason}"] if missing and reason else []


def _failures_of(options: Options, failures: Sequence[str]) -> list[str]:
    """Returns the failures of all calls so far: parts of this call, and tasks."""
    tasks = [
        f"call {row.call}, {row.part}: {row.subject}, {row.quantity}: {row.reason}"
        for row in read(options.out / ROWS)
        if row.reason.startswith("failed")
    ]
    return [*failures, *tasks]


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the call selected on the command line; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.run", description=__doc__.split("\n")[0])
    parser.add_argument("call", type=int, choices=list(CALLS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to try the script")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder that the calls share")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with cifar-10-batches-py")
    given = parser.parse_args(arguments)
    options = Options(given.device, given.tiny, given.out.resolve(), given.data.resolve())
    failures = make_call(given.call, options)
    print(f"\n{options.out / PAGE}", *failures, sep="\n", flush=True)
    return 1 if _failures_of(options, failures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
