"""What a study will cost and what it will know, before it is run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ablations.analysis.costs import collect_costs
from ablations.analysis.results import collect
from ablations.analysis.tuning import collect_tuned
from ablations.common.load import LoadMeter
from ablations.common.machine import allowed_cores
from ablations.common.wording import count
from ablations.config import MeasureConfig
from ablations.design import Design, Split
from ablations.execution.costs import TOGETHER
from ablations.execution.launchers.base import Launcher
from ablations.execution.progress import describe_seconds
from ablations.execution.schedules.base import Outlook, Schedule
from ablations.measure.costs import MODES
from ablations.reporting.text.reach import (
    Reach,
    baseline_sentences,
    detection_sentence,
    effect_sentence,
    margin_sentence,
    nothing_sentence,
    unknown_sentences,
)
from ablations.stats import InterimAnalyses
from ablations.storage.cell_states import StoredCell
from ablations.storage.study import StudyStore
from ablations.training.events import Probe

_MOST_PROBED = 24  # variants, whose probing takes seconds
_SOME = 0.15  # cores, as much as background processes of an idle machine use


@dataclass(frozen=True, kw_only=True)
class CellCost(Probe):
    """What a cell of a variant takes, and what that rests on."""

    variant: str
    by: str


@dataclass(frozen=True)
class StudyCost:
    """What is left to train of a study, and what that takes in seconds: typical, and from and to.

    `measuring` is the time limit in seconds of measuring costs before the first cell; `busy` is how many of how many
    `cores` other processes used meanwhile, where cells contend with them, otherwise 0.
    """

    costs: tuple[CellCost, ...]
    missing: int
    seconds: float
    low: float
    high: float
    measuring: float = 0.0
    busy: float = 0.0
    cores: int = 0

    @property
    def sentence(self) -> str:
        """Says it in a line."""
        if math.isnan(self.seconds):
            unknown = [cost.variant for cost in self.costs if math.isnan(cost.seconds)]
            reason = f" for {', '.join(unknown)}" if unknown else " before a variant is picked"
            return f"Cost: unknown{reason}."
        known = [cost.peak_memory_mib for cost in self.costs if not math.isnan(cost.peak_memory_mib)]
        memory = f", with up to {max(known):,.0f} MiB in addition to the images" if known else ""
        shown, low, high = map(describe_seconds, (self.seconds, self.low, self.high))
        span = f" ({low} to {high})" if low != high else ""
        measuring = f"; measuring costs takes up to about {describe_seconds(self.measuring)} more"
        before = measuring if self.measuring > 0 else ""
        load = f" (other processes use {self.busy:.1f} of {count(self.cores, 'core')})" if self.busy else ""
        return f"Cost: about {shown}{span} for {count(self.missing, 'cell')}{memory}{before}{load}."


def costed_cells(design: Design, stored: Sequence[StoredCell]) -> pd.DataFrame:
    """Returns the finished cells that say what others cost, those of a search's selection included.

    These take somewhat less than those of results, as they have fewer images to train on.
    """
    cells = collect(design, stored).cells
    if tuned := collect_tuned(design, stored):
        return cells if tuned.results.cells.empty else pd.concat([cells, tuned.results.cells], ignore_index=True)
    if not design.is_search:
        return cells
    selection = collect(replace(design, replicates=1), stored, Split.VALIDATION).cells
    return selection if cells.empty else pd.concat([cells, selection], ignore_index=True)


def estimate_costs(
    outlook: Outlook, cells: pd.DataFrame, launcher: Launcher, seconds: float, memory: Mapping[str, float]
) -> StudyCost:
    """Estimates what a study still costs.

    Its finished cells say what others of the same variant take. The launcher takes a few steps with variants that have
    none (of very many, with some at equal distances), for so many seconds each. What a search will pick is taken to
    cost what the known variants do in the mean. `memory` is the peak of a training step in MiB, by variant, as far as
    it was measured.
    """
    by_variant = dict(list(cells.groupby("variant", sort=False)))
    variants, missing, picked = outlook.design.variants, outlook.missing, outlook.cells_to_pick
    unknown = [variant for variant in variants if variant.name not in by_variant]
    every = -(-len(unknown) // _MOST_PROBED)
    known = [value for value in memory.values() if not math.isnan(value)]
    launcher.expect(outlook.to_train, max(known, default=math.nan))
    load = LoadMeter()
    probes = launcher.probe(unknown[::every] if unknown else [], seconds)
    busy, cores = _contention(load, launcher) if probes else (0.0, 0)
    costs = [
        _stored(name, by_variant[name], memory.get(name, math.nan)) if name in by_variant else _probed(name, probes)
        for name in (variant.name for variant in variants)
    ]

    def total(key: str) -> float:
        known = [float(getattr(cost, key)) for cost in costs]
        counts = [missing[cost.variant] for cost in costs]
        found = sum(number * each for number, each in zip(counts, known, strict=True) if number)
        return found + picked * _mean(known) if picked else found

    # Cells that are trained at once share the time, and in the last round some workers may have none.
    rounds = math.ceil(outlook.to_train / launcher.capacity) / outlook.to_train if outlook.to_train else 0.0
    middle, low, high = (total(key) * rounds for key in ("seconds", "low", "high"))
    return StudyCost(tuple(costs), outlook.to_train, middle, low, high, busy=busy, cores=cores)


def _contention(load: LoadMeter, launcher: Launcher) -> tuple[float, int]:
    """Returns how many of how many cores others use; 0 where that leaves as many as cells are computed with."""
    others, cores = load.cores_of_others(), len(allowed_cores())
    is_contended = launcher.is_local and others > max(0, cores - launcher.capacity * launcher.threads) + _SOME
    return (others, cores) if is_contended else (0.0, cores)


def peak_memory(store: StudyStore | None, design: Design) -> dict[str, float]:
    """Returns the measured peak memory of a training step in MiB, by variant."""
    costs = collect_costs(store.attributes, design) if store is not None else None
    return {name: cost.peak_memory_mib for name, cost in costs.variants.items()} if costs else {}


def measuring_seconds(schedule: Schedule, measure: MeasureConfig, store: StudyStore | None) -> float:
    """Returns the time limit, in seconds, of measuring the variants of a schedule that were never measured."""
    if measure.name == "off":
        return 0.0
    known = collect_costs(store.attributes, schedule.design) if store is not None else None
    measured = {name for name, cost in known.variants.items() if not cost.failed} if known else set()
    models = Counter(str(variant.model) for variant in schedule.measured_first if variant.name not in measured)
    # On a GPU calls are timed eager and captured.
    timings = len(MODES) * (2 if schedule.design.protocol["device"] == "cuda" else 1)
    return sum(math.ceil(number / TOGETHER) for number in models.values()) * timings * measure.seconds


def _stored(variant: str, cells: pd.DataFrame, memory: float) -> CellCost:
    times = cells["seconds"]
    middle, low, high = float(times.median()), float(times.min()), float(times.max())
    by = count(len(cells), "stored cell")
    return CellCost(middle, low, high, memory, int(cells["parameters"].iloc[0]), variant=variant, by=by)


def _probed(variant: str, probes: Mapping[str, Probe | str]) -> CellCost:
    """Takes a variant that was not probed itself to cost what others do in the mean."""
    probe = probes.get(variant)
    if isinstance(probe, Probe):
        return CellCost(**vars(probe), variant=variant, by="a few steps")
    if probe is not None:
        return CellCost(math.nan, math.nan, math.nan, math.nan, 0, variant=variant, by=f"unknown: {probe}")
    others = [other for other in probes.values() if isinstance(other, Probe)]
    keys = ("seconds", "low", "high", "peak_memory_mib")
    seconds, low, high, memory = (_mean([getattr(other, key) for other in others]) for key in keys)
    return CellCost(seconds, low, high, memory, 0, variant=variant, by=f"{len(others)} others")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def power_sentences(design: Design, cells: pd.DataFrame, interims: InterimAnalyses | None) -> list[str]:
    """Says what a study can find, as far as stored replicates tell."""
    if design.is_search and len(design.variants) == len(design.named):
        picks = count(design.confirm, "confirmed pick")
        return [
            f"Power: verdicts are on up to {picks}, with {count(design.replicates, 'replicate')} each; the minimum "
            "detectable effect can be estimated once some are stored."
        ]
    reach = Reach.planned(design, cells, interims)
    if not reach.contrasts:
        return ["Power: not applicable, as no variant is compared with a baseline."]
    if reach.typical == 0:
        return ["Power: unknown, as the paired differences of the stored replicates have no variance."]
    if reach.typical is None:
        return [
            "The minimum detectable effect can be estimated once two replicates are stored; plan.pilot=3 trains "
            "three, the first ones of the study."
        ]
    if reach.n < 2:
        return [nothing_sentence(reach)]
    return [sentence for print_text in (detection_sentence, margin_sentence) if (sentence := print_text(reach))]


def wanted(
    design: Design, cells: pd.DataFrame, interims: InterimAnalyses | None, effect: float, costs: Sequence[CellCost]
) -> list[str]:
    """Says how many replicates a difference takes, and what those cost; in SD where nothing is stored.

    `effect` is 0 where none is asked for: then it is the margin.
    """
    reach = Reach.planned(design, cells, interims)
    if design.is_search or not reach.contrasts or reach.typical == 0:
        return []
    if reach.typical is None:
        return unknown_sentences(reach, effect)
    text, number = effect_sentence(reach, effect or design.margin)
    seconds = sum(cost.seconds for cost in costs)
    if number and not math.isnan(seconds):
        text += f"; {count(number, 'replicate')} take {describe_seconds(number * seconds)} of training"
    return [f"{text}.", *baseline_sentences(reach)]
