"""Estimates the cost and the statistical power of a study before it runs."""

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

_MOST_PROBED = 24  # variants; probing one takes seconds
_SOME = 0.15  # cores that background processes use on an idle machine


@dataclass(frozen=True, kw_only=True)
class CellCost(Probe):
    """The estimated cost of a cell of a variant, and the source of the estimate (`by`)."""

    variant: str
    by: str


@dataclass(frozen=True)
class StudyCost:
    """The remaining cells of a study and their training time in seconds: typical, lowest and highest.

    `measuring` is the time limit in seconds of measuring costs before the first cell. `busy` is how many of the `cores`
    other processes used during probing, if cells contend with them, otherwise 0.
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
        """The estimate as a sentence."""
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
    """Returns the finished cells from which costs are estimated, including the selection cells of a search.

    Selection cells take slightly less time than result cells, as they train on fewer images.
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
    """Estimates the remaining cost of a study.

    The estimate of a variant is based on its finished cells. The launcher probes variants without finished cells with
    training steps for `seconds` each; of many such variants, it probes an evenly spaced subset. Variants that a search
    has yet to select are assigned the mean cost of the known variants. `memory` is the measured peak of a training step
    in MiB, by variant.
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

    # Cells trained in parallel share the time; in the last round some workers may be idle.
    rounds = math.ceil(outlook.to_train / launcher.capacity) / outlook.to_train if outlook.to_train else 0.0
    middle, low, high = (total(key) * rounds for key in ("seconds", "low", "high"))
    return StudyCost(tuple(costs), outlook.to_train, middle, low, high, busy=busy, cores=cores)


def _contention(load: LoadMeter, launcher: Launcher) -> tuple[float, int]:
    """Returns the cores used by other processes (0 if enough remain for the cells) and the cores available."""
    others, cores = load.cores_of_others(), len(allowed_cores())
    is_contended = launcher.is_local and others > max(0, cores - launcher.capacity * launcher.threads) + _SOME
    return (others, cores) if is_contended else (0.0, cores)


def peak_memory(store: StudyStore | None, design: Design) -> dict[str, float]:
    """Returns the measured peak memory of a training step in MiB, by variant."""
    costs = collect_costs(store.attributes, design) if store is not None else None
    return {name: cost.peak_memory_mib for name, cost in costs.variants.items()} if costs else {}


def measuring_seconds(schedule: Schedule, measure: MeasureConfig, store: StudyStore | None) -> float:
    """Returns the time limit in seconds for measuring the variants of a schedule without measured costs."""
    if measure.name == "off":
        return 0.0
    known = collect_costs(store.attributes, schedule.design) if store is not None else None
    measured = {name for name, cost in known.variants.items() if not cost.failed} if known else set()
    models = Counter(str(variant.model) for variant in schedule.measured_first if variant.name not in measured)
    # On a GPU, calls are timed both eagerly and as captured graphs.
    timings = len(MODES) * (2 if schedule.design.protocol["device"] == "cuda" else 1)
    return sum(math.ceil(number / TOGETHER) for number in models.values()) * timings * measure.seconds


def _stored(variant: str, cells: pd.DataFrame, memory: float) -> CellCost:
    times = cells["seconds"]
    middle, low, high = float(times.median()), float(times.min()), float(times.max())
    by = count(len(cells), "stored cell")
    return CellCost(middle, low, high, memory, int(cells["parameters"].iloc[0]), variant=variant, by=by)


def _probed(variant: str, probes: Mapping[str, Probe | str]) -> CellCost:
    """Returns the cost from the probe of a variant, or the mean of the probed variants if it was not probed."""
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
    """Returns sentences on the effects that a study can detect, estimated from the stored replicates."""
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
    return [sentence for sentence_on in (detection_sentence, margin_sentence) if (sentence := sentence_on(reach))]


def wanted(
    design: Design, cells: pd.DataFrame, interims: InterimAnalyses | None, effect: float, costs: Sequence[CellCost]
) -> list[str]:
    """Returns sentences on the replicates needed to detect an effect and their cost; in SD if nothing is stored.

    If `effect` is 0, the equivalence margin is used.
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
