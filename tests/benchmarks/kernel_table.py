"""The table of Triton kernels: properties of their machine code, without a GPU, and measured speed, if available.

    python -m tests.benchmarks.kernel_table                # rewrites tests/benchmarks/kernel_table.md; a minute
    python -m tests.benchmarks.kernel_table ratios.csv     # includes measurements of `tests.gpu.run`

Kernels are compiled for `sm_90` (H100, H200) and the feature maps of SA-ResNet-50. The machine code gives the number of
kernels, the feature maps that they read and write, the width of loads, registers and occupancy. A memory-bound kernel
reaches at most least / moved of the speed of a copy.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

PATH = Path(__file__).with_suffix(".md")
ROOT = Path(__file__).parents[2]
IMAGES, GROUPS = 64, 64
STAGES = ((256, 56), (512, 28), (1024, 14), (2048, 7))  # channels, height and width
MUST, GOAL = 75, 90  # required and target percent of copy bandwidth, forward
UNMEASURED = "not measured: no GPU"


class Case(NamedTuple):
    """A compiled case: SA on a bf16 map, alone or between batch norm (batch statistics) and addition with ReLU."""

    channels: int
    side: int
    channels_last: bool
    joined: bool = False

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{self.channels}×{self.side}×{self.side}, {layout}{', joined' if self.joined else ''}"


class Row(NamedTuple):
    """A pass of a case: number of `kernels`, feature maps `moved` and their minimum `least`, bytes per load.

    Registers are the maximum and occupancy is the minimum over kernels on feature maps; `spilled` is in bytes.
    """

    case: str
    mode: str
    kernels: int
    moved: float
    least: int
    widths: list[int]
    registers: int
    warps: int
    occupancy: int
    spilled: int

    @property
    def bound(self) -> int:
        """Maximum percent of copy bandwidth, given the bytes moved."""
        return math.floor(100 * self.least / self.moved)


CASES = [Case(*stage, last, joined) for joined in (False, True) for last in (False, True) for stage in STAGES]
_LEAST = {("forward", False): 2, ("forward", True): 3, ("backward", False): 3, ("backward", True): 5}


def compile_cases(cases: Iterable[Case]) -> list[Row]:
    """Compiles kernels in this process, which cannot use a GPU afterwards."""
    import torch

    from sa_core.fused import gpu
    from sa_core.fused.form import Form, Parameters
    from tests.sa_core.fused.compiled import WARPS, compiling

    rows = []
    with compiling() as launches:
        for case in cases:
            layout = torch.channels_last if case.channels_last else torch.contiguous_format
            shape = (IMAGES, case.channels, case.side, case.side)
            x = torch.empty(shape, dtype=torch.bfloat16, memory_format=layout)
            half = case.channels // (2 * GROUPS)
            form = Form(GROUPS, half, True, "instance", 2, "batch" if case.joined else "none")
            widths = form.widths(case.channels)
            parameters = Parameters(*map(torch.empty, widths if case.joined else widths[:6]))
            launches.clear()
            out, statistics, moments = gpu.forward(form, parameters, x, x if case.joined else None, None, None)
            passes = {"forward": list(launches)}
            launches.clear()
            gpu.backward(form, parameters, x, x, out if case.joined else None, statistics, moments, None)
            passes["backward"] = list(launches)
            for mode, launched in passes.items():
                on_maps = [launch for launch in launched if launch.accesses]
                least = _LEAST[mode, case.joined]
                rows.append(
                    Row(
                        str(case),
                        mode,
                        len(launched),
                        sum(launch.maps_moved for launch in on_maps),
                        least,
                        sorted({width for launch in on_maps for width in launch.load_widths}),
                        max(launch.registers for launch in on_maps),
                        max(launch.warps for launch in on_maps),
                        min(min(launch.occupancy for launch in on_maps), WARPS),
                        max(launch.spilled for launch in launched),
                    )
                )
    return rows


def compiled_rows(cases: Sequence[Case] = CASES) -> list[Row]:
    """Compiles kernels in a separate process.

    Raises:
        subprocess.CalledProcessError: if a kernel does not compile.
    """
    command = [sys.executable, "-m", "tests.benchmarks.kernel_table", *(str(CASES.index(case)) for case in cases)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [Row(*row) for row in json.loads(done.stdout.splitlines()[-1])]


HEADERS = (
    "feature map", "pass", "kernels", "maps moved / least", "bytes a load", "registers", "warps", "occupancy",
    "bound (% of copy)", "measured (% of copy)",
)  # fmt: skip


def markdown(rows: Sequence[Row], measured: dict[tuple[str, str], float], versions: str) -> str:
    """Renders the table; `measured` is the percentage of copy bandwidth by case and pass, empty without a GPU."""
    lines = [
        "# Triton kernels on sm_90",
        "",
        f"Compiled for sm_90 (H100, H200) by `python -m tests.benchmarks.kernel_table`; {versions}. {IMAGES} images in",
        f"bf16, G = {GROUPS}. Joined: with the batch norm before and the addition and ReLU after it, in training.",
        "Occupancy is warps resident per multiprocessor, of 64. The bound is least / moved: what the bytes allow where",
        "nothing of a second read is in the L2 cache. No kernel spills registers."
        if not any(r.spilled for r in rows)
        else "nothing of a second read is in the L2 cache. Some kernels spill registers.",
        "",
        f"Expected of the forward pass of the module alone: at least {MUST} % of copy bandwidth, goal {GOAL} %.",
        "",
        "| " + " | ".join(HEADERS) + " |",
        "| " + " | ".join("---" for _ in HEADERS) + " |",
    ]
    for row in rows:
        share = measured.get((row.case, row.mode))
        cells = (
            row.case, row.mode, row.kernels, f"{row.moved:g} / {row.least}", ", ".join(map(str, row.widths)),
            row.registers, row.warps, f"{row.occupancy} / 64", row.bound,
            UNMEASURED if share is None else f"{share:.0f}",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def measured_shares(path: Path) -> dict[tuple[str, str], float]:
    """Reads percentages of copy bandwidth, of captured kernels, by case and pass from the CSV of `tests.gpu.run`."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "kernels" and row["value"]]
    modes = {f"{mode}, captured, % of copy bandwidth": mode for mode in ("forward", "backward")}
    return {(row["subject"], modes[row["quantity"]]): float(row["value"]) for row in rows if row["quantity"] in modes}


def main(arguments: Sequence[str]) -> None:
    """Rewrites the table, or prints compiled rows of cases as JSON if they are given by number."""
    if arguments and arguments[0].isdigit():
        print(json.dumps(compile_cases(CASES[int(number)] for number in arguments)))
        return
    import torch
    import triton

    shares = measured_shares(Path(arguments[0])) if arguments else {}
    versions = f"torch {torch.__version__}, Triton {triton.__version__}"
    PATH.write_text(markdown(compiled_rows(), shares, versions))
    print(PATH.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
