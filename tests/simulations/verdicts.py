"""What verdicts promise, counted: `python -m tests.simulations.verdicts` writes `verdicts.md` beside this file.

Some 25 minutes on two cores. Every number is seeded; the Monte Carlo error of 5 % of 2,000 studies is 0.5 points.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from ablations.reporting.tables.render import markdown_table
from ablations.stats.interims import InterimAnalyses
from ablations.stats.power import power
from tests.simulations.studies import KINDS, differs, inferences, is_equivalent, stability, studies

CONTRASTS, REPLICATES = (1, 4, 9), (3, 5, 6, 8, 12, 20)
STUDIES, FEWER = 2000, 1000
MOST = 20  # replicates under replicates=auto
FAR = 1e6  # a margin that plays no part, in standard deviations of a run

Row = tuple[str, ...]


def percent(wrong: int, of: int) -> str:
    """Writes a share of studies in percent."""
    return f"{100 * wrong / of:.1f}"


def false_differences(kind: str, replicates: int, contrasts: int) -> str:
    """Counts studies of variants that do nothing, of any of which a difference is claimed."""
    wrong = sum(any(map(differs, inferences(values, 1e-6))) for values in studies(kind, STUDIES, replicates, contrasts))
    return percent(wrong, STUDIES)


def false_equivalents(kind: str, replicates: int, contrasts: int) -> str:
    """Counts studies of variants that differ by the margin, any of which is claimed to be equivalent.

    The margin is 4 standard errors of a difference at this number of replicates, so that equivalence is within reach.
    """
    margin = 4 * (2 / replicates) ** 0.5
    wrong = 0
    for values in studies(kind, STUDIES, replicates, contrasts, effects=(margin,) * contrasts, seed=1):
        wrong += any(map(is_equivalent, inferences(values, margin)))
    return percent(wrong, STUDIES)


def false_under_interims(kind: str, contrasts: int) -> str:
    """Counts both kinds of wrong claims under `replicates=auto`."""
    interims = InterimAnalyses.planned(MOST)
    assert interims is not None
    found = sum(
        any(map(differs, inferences(one, 1e-6, interims))) for one in studies(kind, FEWER, MOST, contrasts, seed=2)
    )
    margin, same = 4 * (2 / MOST) ** 0.5, 0
    for values in studies(kind, FEWER, MOST, contrasts, effects=(margin,) * contrasts, seed=3):
        same += any(map(is_equivalent, inferences(values, margin, interims)))
    return f"{percent(found, FEWER)} / {percent(same, FEWER)}"


def found_effects(replicates: int, effect: float) -> tuple[str, str]:
    """Returns the simulated and the predicted power for one effect among 4, in standard deviations of a difference."""
    hits = 0
    for values in studies("normal", STUDIES, replicates, 4, effects=(effect * 2**0.5,), seed=4):
        hits += differs(inferences(values, FAR)[0])
    return f"{hits / STUDIES:.2f}", f"{power(effect, 1.0, replicates, 4):.2f}"


def early_estimates(effect: float) -> Row:
    """Returns what becomes of estimates that a look before the last decides, in standard deviations of a difference."""
    interims, naive, adjusted = InterimAnalyses.planned(32), [], []
    assert interims is not None
    for values in studies("normal", FEWER, 32, 4, effects=(effect * 2**0.5,), seed=5):
        inference = inferences(values, 1e-6, interims)[0]
        if (
            differs(inference)
            and inference.interim != interims.sizes[-1]
            and inference.estimate
            and inference.estimate.mean > 0
        ):
            assert inference.adjusted is not None
            naive.append(inference.estimate.mean / 2**0.5 - effect)
            adjusted.append(inference.adjusted / 2**0.5 - effect)
    share, shown = len(naive) / FEWER, (np.mean(naive), np.mean(adjusted), np.median(adjusted))
    return f"{effect:g}", f"{share:.2f}", *(f"{value:+.2f}" for value in shown)


def failures(replicates: int, sd: float, contrasts: int = 4, loss: float = 4.0, margin: float = 1.0) -> Row:
    """Counts, where one run in ten of a variant loses some points and its mean is as high as the baseline's.

    How often instability is found of studies that hold such a run; wrong verdicts without and with that finding; and
    equivalence that is claimed of a variant with a failure in the sample.
    """
    draws = np.random.default_rng([6, replicates, int(100 * sd)])
    held = found = wrong = told = same = 0
    for values in studies("normal", STUDIES, replicates, contrasts, seed=7):
        values *= sd
        fails = draws.random(replicates) < 0.1
        values[:, 1] += loss / 10 - loss * fails
        inference, pair = inferences(values, margin)[0], stability(values, margin)[:2]
        is_unstable, strays = any(one.is_unstable for one in pair), sum(one.strays for one in pair)
        held += bool(fails.any())
        found += bool(fails.any()) and is_unstable
        wrong += differs(inference)
        told += differs(inference) and not is_unstable
        same += bool(fails.any()) and is_equivalent(inference) and not (is_unstable or strays)
    return (
        str(replicates), f"{sd:g}", percent(held, STUDIES), percent(found, held), percent(wrong, STUDIES),
        percent(told, STUDIES), percent(same, held),
    )  # fmt: skip


def false_alarms(kind: str, replicates: int, contrasts: int) -> str:
    """Counts studies of equally stable variants in which one is called unstable, whatever the margin."""
    alarms = 0
    for values in studies(kind, STUDIES, replicates, contrasts, seed=8):
        alarms += any(one.is_unstable for one in stability(values, 1e-6))
    return percent(alarms, STUDIES)


@dataclass(frozen=True)
class Section:
    """A table of the report, whose cells are being counted: a column is one job's result, or several of it."""

    title: str
    note: str
    head: Row
    rows: Sequence[tuple[Row, Sequence[Future[str] | Future[Row]]]]

    @property
    def lines(self) -> list[str]:
        """Waits for the numbers and returns the section."""
        rows = [(*names, *(cell for job in jobs for cell in _cells(job.result()))) for names, jobs in self.rows]
        return [f"## {self.title}", "", self.note, "", *markdown_table(self.head, rows), ""]


def _cells(result: str | Row) -> Row:
    return (result,) if isinstance(result, str) else result


def sections(pool: ProcessPoolExecutor) -> list[Section]:
    """Begins to count all that the report has."""
    settings = [(n, k) for k in CONTRASTS for n in REPLICATES]
    wide = ("differences", *(f"k = {k}, n = {n}" for n, k in settings))
    whole, half = f"{STUDIES:,} studies each.", f"{FEWER:,} studies each."
    early = ("true effect", "decided before the last look", "bias of the mean", "bias of the adjusted", "its median's")
    failed = ("n", "SD of a run", "hold a failure %", "of these unstable %", "wrong verdict, tests alone %",
              "with it %", "equivalent in spite of a failure %")  # fmt: skip
    table = ((3, 2.0), (5, 1.5), (6, 1.5), (8, 1.0), (8, 1.5), (12, 1.0), (20, 0.8))
    counted = {
        "Family-wise error: variants that do nothing, one of which is said to help or hurt (%)": false_differences,
        "False equivalent: variants that differ by the margin, one of them called equivalent (%)": false_equivalents,
        "Variants that are called unstable though all are alike (%); the margin does not help": false_alarms,
    }
    return [
        *(
            Section(
                title, whole, wide, [((kind,), [pool.submit(count, kind, *one) for one in settings]) for kind in KINDS]
            )
            for title, count in counted.items()
        ),
        Section(
            f"The same under replicates=auto, of {MOST} at most: family-wise error / false equivalent (%)",
            half,
            ("differences", *(f"k = {k}" for k in CONTRASTS)),
            [((kind,), [pool.submit(false_under_interims, kind, k) for k in CONTRASTS]) for kind in KINDS],
        ),
        Section(
            "Power for one effect among 4 contrasts",
            f"{whole[:-1]}; effects in standard deviations of a paired difference.",
            ("n, effect", "simulated", "predicted"),
            [((f"{n}, {effect:g}",), [pool.submit(found_effects, n, effect)]) for n, effect in table],
        ),
        Section(
            "Estimates of effects that a look decided early (replicates=auto, 32 at most)",
            f"{half[:-1]}, in standard deviations of a difference.",
            early,
            [((), [pool.submit(early_estimates, effect)]) for effect in (0.3, 0.5, 0.8, 1.2)],
        ),
        Section(
            "One run in ten loses 4 points, at equal means (4 contrasts, margin 1)",
            whole,
            failed,
            [((), [pool.submit(failures, n, sd)]) for n, sd in product((5, 8, 12, 20), (0.5, 0.74, 1.0))],
        ),
    ]


def main() -> None:
    """Writes the report."""
    lines = ["# What verdicts promise, counted", "", "Made by `python -m tests.simulations.verdicts`; seeded.", ""]
    with ProcessPoolExecutor(2) as pool:
        for section in sections(pool):
            lines += section.lines
            print(section.title, flush=True)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
