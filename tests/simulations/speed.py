"""False alarms and power of speed comparisons under load: `python -m tests.simulations.speed` writes `speed.md`.

Two busy loops run beside it. 200 comparisons are of six identical subjects; in 30, one of the six does a tenth more of
the same work. They go through `measure.speed.compare` and `stats.judge_costs` as a benchmark's do, with one thread and
its clock. Nothing else should run: other processes cost power, and up to 40 minutes in place of some 15.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ablations.common import machine
from ablations.common.process import keep_freed_memory
from ablations.measure.speed import TWIN, Act, Make, Samples, clock_of, compare, half_width
from ablations.reporting.tables.render import markdown_table
from ablations.stats import CostVerdict, judge_costs
from sa_core import ATTENTION

NAMES = ("baseline", "a", "b", "c", "d", "e")
PLANTED = "c"  # the subject that does more, where one does
IDENTICAL, DIFFERENT = 200, 30
SECONDS, SECONDS_OF_DIFFERENT = 3.0, 40.0  # of a comparison, at most
PRECISION, MARGIN = 0.02, 0.05
UNDECIDED = CostVerdict.UNDECIDED
DIFFERS = (CostVerdict.SLOWER, CostVerdict.FASTER)
ALL, INFERENCE, STEP = "all", "small network, inference", "small network, training step"
CPU = torch.device("cpu")

Row = tuple[str, ...]


def module(name: str, **knobs: int) -> Act:
    """Builds an attention module on a feature map of 4 x 32 x 8 x 8, and returns its forward pass."""
    built, x = ATTENTION[name](32, **knobs).eval(), torch.randn(4, 32, 8, 8)

    def act() -> None:
        with torch.inference_mode():
            built(x)

    return act


def network(mode: str) -> Act:
    """Builds two convolutions with attention for 2 images of 16 x 16, and returns an inference or a training step."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), ATTENTION["sa"](16, groups=4), nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), ATTENTION["sa"](32, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    pixels, labels = torch.randn(2, 3, 16, 16), torch.arange(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)

    def step() -> None:
        F.cross_entropy(model(pixels), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def infer() -> None:
        with torch.inference_mode():
            model(pixels)

    model.train(mode == STEP)
    return step if mode == STEP else infer


KINDS: dict[str, Make] = {
    "sa": lambda: module("sa", groups=4),
    "se": lambda: module("se"),
    "sge": lambda: module("sge", groups=4),
    INFERENCE: lambda: network(INFERENCE),
    STEP: lambda: network(STEP),
}


def repeated(make: Make, times: int) -> Make:
    """Returns what builds a subject that does its work so many times a call."""

    def build() -> Act:
        act = make()

        def several() -> None:
            for _ in range(times):
                act()

        return several

    return build


def subjects(kind: str, *, planted: bool) -> dict[str, Make]:
    """Returns six identical subjects, or five that work ten times a call and one that works eleven times."""
    if not planted:
        return dict.fromkeys(NAMES, KINDS[kind])
    return {name: repeated(KINDS[kind], 11 if name == PLANTED else 10) for name in NAMES}


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        kind: of its subjects.
        verdicts: by subject.
        copies: of each subject.
        half_width: of the widest 95 % CI, as a log ratio.
        farthest: the largest absolute log ratio of a subject that is identical to the baseline.
        load: processes that ran or waited for a core, in the minute before.
    """

    kind: str
    verdicts: dict[str, CostVerdict]
    copies: int
    half_width: float
    farthest: float
    load: float

    @classmethod
    def of(cls, kind: str, samples: Samples) -> Comparison:
        """Judges samples as a benchmark does."""
        rows = [(name, copy, value) for name in NAMES for copy, value in enumerate(samples.log_ratios(name))]
        values = pd.DataFrame(rows, columns=["variant", "copy", "log_ratio"])
        contrasts = judge_costs(values, dict.fromkeys(NAMES, samples.baseline), MARGIN)
        widest = max(half_width(samples.log_ratios(name)) for name in (*NAMES, TWIN))
        farthest = max(abs(np.log(one.ratio)) for one in contrasts if one.variant != PLANTED)
        return cls(
            kind,
            {one.variant: one.verdict for one in contrasts},
            samples.copies,
            widest,
            float(farthest),
            os.getloadavg()[0],
        )

    def false_alarms(self, *, planted: bool) -> int:
        """Counts identical subjects that are called different."""
        return sum(verdict in DIFFERS for name, verdict in self.verdicts.items() if not (planted and name == PLANTED))


def compared(number: int, *, planted: bool) -> list[Comparison]:
    """Compares so many times, the kinds in turns."""
    found = []
    for seed, kind in zip(range(number), cycle(KINDS)):
        chosen = subjects(kind, planted=planted)
        seconds = SECONDS_OF_DIFFERENT if planted else SECONDS
        samples = compare(chosen, NAMES[0], clock_of(CPU), seconds=seconds, precision=PRECISION, seed=seed)
        found.append(Comparison.of(kind, samples))
        print(f"{seed + 1} of {number}: {found[-1]}", flush=True)
    return found


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keeps so many processes busy meanwhile; they end with this one, however it ends."""
    loop = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def identical_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns a row a kind, and one of all: how many comparisons call one of identical subjects different."""
    return _table(
        comparisons,
        ("one called different", lambda some: str(sum(one.false_alarms(planted=False) > 0 for one in some))),
        ("subjects: same / undecided", lambda some: f"{_count(some, CostVerdict.SAME)} / {_count(some, UNDECIDED)}"),
        ("farthest ratio", lambda some: f"{math.exp(max(one.farthest for one in some)):.2f}"),
    )


def planted_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns a row a kind, and one of all: how many comparisons see the subject that does a tenth more."""
    return _table(
        comparisons,
        ("planted seen", lambda some: str(sum(one.verdicts[PLANTED] is CostVerdict.SLOWER for one in some))),
        ("another called different", lambda some: str(sum(one.false_alarms(planted=True) > 0 for one in some))),
    )


def _count(comparisons: Sequence[Comparison], verdict: CostVerdict) -> int:
    return sum(found is verdict for one in comparisons for found in one.verdicts.values())


def _table(comparisons: Sequence[Comparison], *columns: tuple[str, Callable[[Sequence[Comparison]], str]]) -> list[str]:
    headers = (
        "subjects",
        "comparisons",
        *(name for name, _ in columns),
        "copies",
        "half width of the widest CI (%)",
        "load",
    )
    groups = {kind: [one for one in comparisons if one.kind == kind] for kind in KINDS} | {ALL: list(comparisons)}
    rows = [
        [
            kind,
            str(len(some)),
            *(column(some) for _, column in columns),
            f"{np.median([one.copies for one in some]):.0f}",
            f"{100 * math.expm1(np.median([one.half_width for one in some])):.1f}",
            f"{np.mean([one.load for one in some]):.1f}",
        ]
        for kind, some in groups.items()
    ]
    return [*markdown_table(headers, rows), ""]


def main() -> None:
    """Writes the report."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as benchmarks and studies do
    environment = machine.environment()
    lines = [
        "# Speed comparisons under load", "",
        "Made by `python -m tests.simulations.speed` while two busy loops (and other work, see the load) ran on "
        f"{environment['cpu']} (kernels: {environment['kernels']}; torch {environment['torch']}, Python "
        f"{environment['python']}). Every comparison has six subjects and a second copy of the baseline. It ends when "
        f"all 95 % CIs have a half width of {100 * PRECISION:.0f} %, or after {SECONDS:.0f} seconds (identical "
        f"subjects) or {SECONDS_OF_DIFFERENT:.0f} seconds (one differs). The margin is {100 * MARGIN:.0f} %; p-values "
        "are corrected for five contrasts. Copies and half widths are medians; the load is the mean number of "
        "processes that ran or waited for a core.", "",
    ]  # fmt: skip
    with busy_loops(2):
        for planted, count, table in ((False, IDENTICAL, identical_table), (True, DIFFERENT, planted_table)):
            what = "one of six does a tenth more" if planted else "six identical subjects"
            lines += [f"## One thread, by its own clock: {what}", "", *table(compared(count, planted=planted))]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
