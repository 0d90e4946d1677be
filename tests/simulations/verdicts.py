"""Error rates and power of verdicts in simulated studies: `python -m tests.simulations.verdicts` writes `verdicts.md`.

Takes about 25 minutes on two cores. All random numbers are seeded; the Monte Carlo standard error of 5 % of 2,000
studies is 0.5 points.
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
FAR = 1e6  # a margin without effect, in standard deviations of a run

Row = tuple[str, ...]


def percent(wrong: int, of: int) -> str:
    """Formats a fraction of studies in percent."""
    return f"{100 * wrong / of:.1f}"


def false_differences(kind: str, replicates: int, contrasts: int) -> str:
    """Counts studies without true differences in which at least one is claimed."""
    wrong = sum(any(map(differs, inferences(values, 1e-6))) for values in studies(kind, STUDIES, replicates, contrasts))
    return percent(wrong, STUDIES)


def false_equivalents(kind: str, replicates: int, contrasts: int) -> str:
    """Counts studies of variants that all differ by the margin in which at least one is called equivalent.

    The margin is 4 standard errors of a difference at this number of replicates, so that equivalence is attainable.
    """
    margin = 4 * (2 / replicates) ** 0.5
    wrong = 0
    for values in studies(kind, STUDIES, replicates, contrasts, effects=(margin,) * contrasts, seed=1):
        wrong += any(map(is_equivalent, inferences(values, margin)))
    return percent(wrong, STUDIES)


def false_under_interims(kind: str, contrasts: int) -> str:
    """Counts studies with false differences and with false equivalence under `replicates=auto`."""
    interims, different, equivalent = InterimAnalyses.planned(MOST), 0, 0
    assert interims is not None
    for values in studies(kind, FEWER, MOST, contrasts, seed=2):
        different += any(map(differs, inferences(values, 1e-6, interims)))
    margin = 4 * (2 / MOST) ** 0.5
    for values in studies(kind, FEWER, MOST, contrasts, effects=(margin,) * contrasts, seed=3):
        equivalent += any(map(is_equivalent, inferences(values, margin, interims)))
    return f"{percent(different, FEWER)} / {percent(equivalent, FEWER)}"


def found_effects(replicates: int, effect: float) -> tuple[str, str]:
    """Returns the simulated and the predicted power for one effect among 4, in standard deviations of a difference."""
    hits = 0
    for values in studies("normal", STUDIES, replicates, 4, effects=(effect * 2**0.5,), seed=4):
        hits += differs(inferences(values, FAR)[0])
    return f"{hits / STUDIES:.2f}", f"{power(effect, 1.0, replicates, 4):.2f}"


def early_estimates(effect: float) -> Row:
    """Returns the bias of estimates decided before the last analysis, in standard deviations of a difference."""
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
    biases = np.mean(naive), np.mean(adjusted), np.median(adjusted)
    return f"{effect:g}", f"{len(naive) / FEWER:.2f}", *(f"{bias:+.2f}" for bias in biases)


def failures(replicates: int, sd: float, contrasts: int = 4, loss: float = 4.0, margin: float = 1.0) -> Row:
    """Counts verdicts on a variant with a mean equal to the baseline's, of which one run in ten loses `loss` points.

    Returns replicates and standard deviation, and percentages: of studies with such a failure; of these studies with
    detected instability; of studies with a wrong verdict, without and with the check for instability; and of studies
    with a failure in which the variant is called equivalent.
    """
    draws = np.random.default_rng([6, replicates, int(100 * sd)])
    with_failure = detected = wrong = wrong_despite_check = equivalent = 0
    for values in studies("normal", STUDIES, replicates, contrasts, seed=7):
        values *= sd
        fails = draws.random(replicates) < 0.1
        values[:, 1] += loss / 10 - loss * fails
        inference, pair = inferences(values, margin)[0], stability(values, margin)[:2]
        is_unstable, strays = any(variant.is_unstable for variant in pair), sum(variant.strays for variant in pair)
        with_failure += bool(fails.any())
        detected += bool(fails.any()) and is_unstable
        wrong += differs(inference)
        wrong_despite_check += differs(inference) and not is_unstable
        equivalent += bool(fails.any()) and is_equivalent(inference) and not (is_unstable or strays)
    return (
        str(replicates), f"{sd:g}", percent(with_failure, STUDIES), percent(detected, with_failure),
        percent(wrong, STUDIES), percent(wrong_despite_check, STUDIES), percent(equivalent, with_failure),
    )  # fmt: skip


def false_alarms(kind: str, replicates: int, contrasts: int) -> str:
    """Counts studies of equally stable variants in which at least one is called unstable, with a negligible margin."""
    alarms = 0
    for values in studies(kind, STUDIES, replicates, contrasts, seed=8):
        alarms += any(variant.is_unstable for variant in stability(values, 1e-6))
    return percent(alarms, STUDIES)


@dataclass(frozen=True)
class Section:
    """A table of the report whose cells are being computed; a job gives one cell or several."""

    title: str
    note: str
    head: Row
    rows: Sequence[tuple[Row, Sequence[Future[str] | Future[Row]]]]

    @property
    def lines(self) -> list[str]:
        """The lines of the section, after all jobs have finished."""
        rows = [(*names, *(cell for job in jobs for cell in _cells(job.result()))) for names, jobs in self.rows]
        return [f"## {self.title}", "", self.note, "", *markdown_table(self.head, rows), ""]


def _cells(result: str | Row) -> Row:
    return (result,) if isinstance(result, str) else result


def submit_sections(pool: ProcessPoolExecutor) -> list[Section]:
    """Submits the computations of all sections."""
    settings = [(n, k) for k in CONTRASTS for n in REPLICATES]
    wide = ("distribution", *(f"k = {k}, n = {n}" for n, k in settings))
    whole, half = f"{STUDIES:,} studies each.", f"{FEWER:,} studies each."
    early = ("true effect", "decided early", "bias of the mean", "bias of the adjusted mean",
             "median bias of the adjusted mean")  # fmt: skip
    failed = ("n", "SD of a run", "studies with a failure %", "detected %", "wrong verdict, without stability check %",
              "wrong verdict, with it %", "called equivalent despite a failure %")  # fmt: skip
    table = ((3, 2.0), (5, 1.5), (6, 1.5), (8, 1.0), (8, 1.5), (12, 1.0), (20, 0.8))
    counts = {
        "Family-wise error: no true differences, at least one claimed (%)": false_differences,
        "False equivalence: all variants differ by the margin, at least one called equivalent (%)": false_equivalents,
        "False instability: equally stable variants, at least one called unstable (%), margin near 0": false_alarms,
    }
    sections = []
    for title, count in counts.items():
        rows = [((kind,), [pool.submit(count, kind, *setting) for setting in settings]) for kind in KINDS]
        sections.append(Section(title, whole, wide, rows))
    return [
        *sections,
        Section(
            f"Interim analyses (replicates=auto, at most {MOST}): family-wise error / false equivalence (%)",
            half,
            ("distribution", *(f"k = {k}" for k in CONTRASTS)),
            [((kind,), [pool.submit(false_under_interims, kind, k) for k in CONTRASTS]) for kind in KINDS],
        ),
        Section(
            "Power for one effect among 4 contrasts",
            f"{whole[:-1]}; effects in standard deviations of a paired difference.",
            ("n, effect", "simulated", "predicted"),
            [((f"{n}, {effect:g}",), [pool.submit(found_effects, n, effect)]) for n, effect in table],
        ),
        Section(
            "Estimates of effects decided before the last analysis (replicates=auto, at most 32)",
            f"{half[:-1]}, in standard deviations of a difference.",
            early,
            [((), [pool.submit(early_estimates, effect)]) for effect in (0.3, 0.5, 0.8, 1.2)],
        ),
        Section(
            "Failures: one run in ten of a variant loses 4 points, equal means (4 contrasts, margin 1)",
            whole,
            failed,
            [((), [pool.submit(failures, n, sd)]) for n, sd in product((5, 8, 12, 20), (0.5, 0.74, 1.0))],
        ),
    ]


def main() -> None:
    """Writes the report."""
    lines = ["# Error rates and power of verdicts in simulated studies", ""]
    lines += ["Written by `python -m tests.simulations.verdicts`, with fixed seeds.", ""]
    with ProcessPoolExecutor(2) as pool:
        for section in submit_sections(pool):
            lines += section.lines
            print(section.title, flush=True)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
