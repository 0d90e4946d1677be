"""False alarms and power of speed comparisons under load: `python -m tests.simulations.speed` writes `speed.md`.

Two busy loops run at the same time. 200 comparisons are of six identical subjects; in 30, one of the six does 10 % more
of the same work. They use `measure.speed.compare` and `stats.judge_costs` as benchmarks do, with one thread and its CPU
clock. Nothing else should run: other processes reduce power and increase the duration from 15 to up to 40 minutes.
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
PLANTED = "c"  # the subject with more work, in comparisons that have one
IDENTICAL, DIFFERENT = 200, 30
SECONDS, SECONDS_OF_DIFFERENT = 3.0, 40.0  # maximum duration of a comparison
PRECISION, MARGIN = 0.02, 0.05
UNDECIDED = CostVerdict.UNDECIDED
DIFFERS = (CostVerdict.SLOWER, CostVerdict.FASTER)
ALL, INFERENCE, STEP = "all", "small network, inference", "small network, training step"
CPU = torch.device("cpu")

Row = tuple[str, ...]


def module(name: str, **knobs: int) -> Act:
    """Returns the forward pass of an attention module on a feature map of 4 x 32 x 8 x 8."""
    built, x = ATTENTION[name](32, **knobs).eval(), torch.randn(4, 32, 8, 8)

    def act() -> None:
        with torch.inference_mode():
            built(x)

    return act


def network(mode: str) -> Act:
    """Returns an inference or a training step of two convolutions with attention on 2 images of 16 x 16."""
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
    """Returns a function that builds a subject whose calls repeat its work `times` times."""

    def build() -> Act:
        act = make()

        def repeat() -> None:
            for _ in range(times):
                act()

        return repeat

    return build


def subjects(kind: str, *, planted: bool) -> dict[str, Make]:
    """Returns six identical subjects, or five that repeat their work ten times and one that does so eleven times."""
    if not planted:
        return dict.fromkeys(NAMES, KINDS[kind])
    return {name: repeated(KINDS[kind], 11 if name == PLANTED else 10) for name in NAMES}


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        kind: kind of its subjects.
        verdicts: verdicts by subject.
        copies: copies of each subject.
        half_width: half width of the widest 95 % CI, as a log ratio.
        farthest: the largest absolute log ratio of a subject that is identical to the baseline.
        load: load average of the last minute (processes that run or wait for a core).
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
        farthest = max(abs(np.log(contrast.ratio)) for contrast in contrasts if contrast.variant != PLANTED)
        return cls(
            kind,
            {contrast.variant: contrast.verdict for contrast in contrasts},
            samples.copies,
            widest,
            float(farthest),
            os.getloadavg()[0],
        )

    def false_alarms(self, *, planted: bool) -> int:
        """Returns the number of identical subjects that are called different."""
        return sum(verdict in DIFFERS for name, verdict in self.verdicts.items() if not (planted and name == PLANTED))


def compared(number: int, *, planted: bool) -> list[Comparison]:
    """Makes `number` comparisons, alternating between kinds."""
    comparisons = []
    for seed, kind in zip(range(number), cycle(KINDS)):
        makes = subjects(kind, planted=planted)
        seconds = SECONDS_OF_DIFFERENT if planted else SECONDS
        samples = compare(makes, NAMES[0], clock_of(CPU), seconds=seconds, precision=PRECISION, seed=seed)
        comparisons.append(Comparison.of(kind, samples))
        print(f"{seed + 1} of {number}: {comparisons[-1]}", flush=True)
    return comparisons


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Runs busy loops in `count` processes, which end with this one in any case."""
    loop = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


def identical_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns a table of false alarms, with one row per kind and one for all."""
    return _table(
        comparisons,
        ("false alarms", lambda group: str(sum(each.false_alarms(planted=False) > 0 for each in group))),
        ("subjects: same / undecided", lambda group: f"{_count(group, CostVerdict.SAME)} / {_count(group, UNDECIDED)}"),
        ("largest ratio", lambda group: f"{math.exp(max(each.farthest for each in group)):.2f}"),
    )


def planted_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns a table of detected differences, with one row per kind and one for all."""
    return _table(
        comparisons,
        ("detected", lambda group: str(sum(each.verdicts[PLANTED] is CostVerdict.SLOWER for each in group))),
        ("false alarms", lambda group: str(sum(each.false_alarms(planted=True) > 0 for each in group))),
    )


def _count(comparisons: Sequence[Comparison], verdict: CostVerdict) -> int:
    return sum(list(comparison.verdicts.values()).count(verdict) for comparison in comparisons)


def _table(comparisons: Sequence[Comparison], *columns: tuple[str, Callable[[Sequence[Comparison]], str]]) -> list[str]:
    headers = (
        "subjects",
        "comparisons",
        *(name for name, _ in columns),
        "copies",
        "half width of the widest CI (%)",
        "load",
    )
    groups = {kind: [each for each in comparisons if each.kind == kind] for kind in KINDS} | {ALL: list(comparisons)}
    rows = [
        [
            kind,
            str(len(group)),
            *(column(group) for _, column in columns),
            f"{np.median([each.copies for each in group]):.0f}",
            f"{100 * math.expm1(np.median([each.half_width for each in group])):.1f}",
            f"{np.mean([each.load for each in group]):.1f}",
        ]
        for kind, group in groups.items()
    ]
    return [*markdown_table(headers, rows), ""]


def main() -> None:
    """Writes the report."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as benchmarks and studies do
    environment = machine.environment()
    lines = [
        "# Speed comparisons under load", "",
        "Written by `python -m tests.simulations.speed` while two busy loops (and other work, see the load) ran on "
        f"{environment['cpu']} (kernels: {environment['kernels']}; torch {environment['torch']}, Python "
        f"{environment['python']}). Every comparison has six subjects and a second copy of the baseline. It ends when "
        f"all 95 % CIs have a half width of {100 * PRECISION:.0f} %, or after {SECONDS:.0f} seconds (identical "
        f"subjects) or {SECONDS_OF_DIFFERENT:.0f} seconds (one differs). The margin is {100 * MARGIN:.0f} %; p-values "
        "are corrected for five contrasts. Copies and half widths are medians; the load is the mean number of "
        "processes that ran or waited for a core.", "",
    ]  # fmt: skip
    with busy_loops(2):
        for planted, count, table in ((False, IDENTICAL, identical_table), (True, DIFFERENT, planted_table)):
            what = "One of six subjects does 10 % more work" if planted else "Six identical subjects"
            lines += [f"## {what} (one thread, its CPU clock)", "", *table(compared(count, planted=planted))]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
