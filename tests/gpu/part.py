"""The process of one part of a call, started by `tests.gpu.run`: runs the tasks that a function lists."""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

from tests.gpu.measuring import Options, do


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("call", type=int)
    parser.add_argument("part")
    parser.add_argument("tasks", help="package.module:function")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    options = Options(given.device, given.tiny, given.out, given.data, time.monotonic() + given.seconds)
    module, _, function = given.tasks.partition(":")
    tasks = getattr(importlib.import_module(module), function)(options)
    raise SystemExit(1 if do(given.call, given.part, tasks, options) else 0)


if __name__ == "__main__":
    main()
