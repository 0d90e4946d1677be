"""Cells and the design that they belong to: what is trained, and how often.

A cell is one training run: variant x replicate x protocol. Its key is a hash of everything that decides its result, so
a cell that was trained once is known again.

There are two kinds of cells (`Split`). Those of a result are trained on all training images and evaluated on the test
images. Those that a search or tuning selects by are trained without the validation images, a part of the training
images, and evaluated on these: no selection sees a test image. The two never share a key or a seed.

Under tuning (`ablations.design.tuning`) each variant has results under two recipes: the study's, and its own best one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ablations.common.settings import Settings
from ablations.config import OBJECTIVES, DataConfig, JudgeConfig
from ablations.design.tuning import Tuning
from ablations.design.variants import Variant, level_name
from sa_core.seeds import stream_seed


class Split(StrEnum):
    """On which images a cell is evaluated: for a result on test images, for a selection on validation images."""

    TEST = "test"
    VALIDATION = "validation"


@dataclass(frozen=True)
class Cell:
    """One training run, the unit of work, of resuming and of storage.

    Attributes:
        replicate: its number; of a trial of tuning, the number of the trial.
        tuning: the id of the tuning that the cell is a trial of; otherwise empty.
        is_tested_once: whether it is evaluated after its last epoch alone, as results are where a study selects on
            validation images: until then no test image is looked at.
    """

    variant: Variant
    replicate: int
    seed: int
    key: str
    split: Split = Split.TEST
    tuning: str = ""
    is_tested_once: bool = False

    @property
    def name(self) -> str:
        """How people see it: variant and replicate, or variant and what it is for."""
        if self.split is Split.TEST:
            return f"{self.variant.name} {'tuned ' if self.variant.recipe else ''}r{self.replicate}"
        return f"{self.variant.name} {f'trial {self.replicate}' if self.tuning else 'selection'}"


@dataclass(frozen=True)
class Design:
    """A study as it was asked for: its variants, what all its cells share, and how often each variant is trained.

    `baseline` names a variant, or a level: then every variant is compared with the one that has this level and is
    otherwise equal. Variants are compared by `metric`; a difference of less than `margin`, in its unit, does not
    matter. `factors` are the levels of each factor, by its dotted name. Baselines have `baseline_replicates` in all
    where those are more than `replicates`. Under `replicates=auto` up to `replicates_max` of a variant are trained,
    which is otherwise 0, and `replicates` are those of the first look. The variants of a search are those that are
    known so far; `objectives` is what it looks for, among those with up to `max_parameters` (0: no limit), and up to
    `confirm` of the best are confirmed with `replicates` each. `varied` are the options that differ between variants:
    the factors, and whatever variants that are given by name set. `tuning` says how each variant gets a recipe of its
    own; None where none does.
    """

    study: str
    sweep: str
    question: str
    variants: tuple[Variant, ...]
    baseline: str
    protocol: Settings
    replicates: int
    factors: dict[str, list[Any]]
    is_search: bool = False
    objectives: tuple[str, ...] = ("top1",)
    max_parameters: int = 0
    confirm: int = 0
    metric: str = JudgeConfig.metric
    margin: float = DataConfig.margin
    replicates_max: int = 0
    baseline_replicates: int = 0
    varied: tuple[str, ...] = ()
    tuning: Tuning | None = None

    @property
    def baseline_factor(self) -> str | None:
        """The factor that the baseline is a level of; None where it is a variant."""
        if any(variant.name == self.baseline for variant in self.variants):
            return None
        for path, levels in self.factors.items():
            if any(level_name(path, level) == self.baseline for level in levels):
                return path
        return None

    @property
    def validation(self) -> float:
        """The share of the training images that a selection is made on; 0 where nothing is selected."""
        return self.tuning.validation if self.tuning else float(self.protocol["data"].get("validation", 0.0))

    @property
    def named(self) -> tuple[Variant, ...]:
        """The variants that were given by name, which are in every phase of a search."""
        return tuple(variant for variant in self.variants if not variant.levels)

    @property
    def directions(self) -> list[str]:
        """Whether each objective is to be maximized or minimized."""
        return [OBJECTIVES[objective] for objective in self.objectives]

    @property
    def baselines(self) -> dict[str, str]:
        """The variant that each variant is compared with, by name; baselines are their own."""
        names = [variant.name for variant in self.variants]
        if self.baseline in names:
            return dict.fromkeys(names, self.baseline)
        factor = self.baseline_factor
        if factor is None:
            return {}
        baseline = next(level for level in self.factors[factor] if level_name(factor, level) == self.baseline)
        by_levels = {json.dumps(variant.levels, sort_keys=True): variant.name for variant in self.variants}
        partners = {
            variant.name: by_levels.get(json.dumps(variant.levels | {factor: baseline}, sort_keys=True))
            for variant in self.variants
            if factor in variant.levels
        }
        return {name: partner for name, partner in partners.items() if partner is not None}

    @property
    def sizes(self) -> dict[str, int]:
        """How many replicates each variant has, by name."""
        more = set(self.baselines.values()) if self.baseline_replicates > self.replicates else set()
        names = (variant.name for variant in self.variants)
        return {name: self.baseline_replicates if name in more else self.replicates for name in names}

    def cells(self) -> Iterator[Cell]:
        """Yields all cells, a whole replicate of all variants after the other: a study cut short is still balanced.

        Those are the cells of results; what a search selects by are `selection_cells`.
        """
        sizes = self.sizes
        for replicate in range(max(sizes.values(), default=0)):
            for variant in self.variants:
                if replicate < sizes[variant.name]:
                    yield self.cell(variant, replicate)

    def selection_cells(self) -> Iterator[Cell]:
        """Yields the cells that a search selects by: one of each variant; of other sweeps there are none."""
        if self.is_search:
            for variant in self.variants:
                yield self.cell(variant, 0, Split.VALIDATION)

    def cell(self, variant: Variant, replicate: int, split: Split = Split.TEST) -> Cell:
        """Returns the cell of a variant and a replicate."""
        identity = {"protocol": self.protocol, "network": variant.network, "replicate": replicate}
        identity |= {} if split is Split.TEST else {"split": split.value}
        identity |= {"recipe": variant.recipe} if variant.recipe else {}
        is_trial = self.tuning is not None and split is Split.VALIDATION
        if self.tuning and is_trial:  # a share that a search has is in the protocol
            identity |= {"validation": self.tuning.validation}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return Cell(
            variant,
            replicate,
            self.seed(replicate, split),
            key,
            split,
            tuning=self.tuning.id if self.tuning and is_trial else "",
            is_tested_once=split is Split.TEST and self.validation > 0,
        )

    def seed(self, replicate: int, split: Split = Split.TEST) -> int:
        """Returns the seed of a replicate's cells, or of the trials of this number.

        It does not depend on the variant: a replicate's networks start from the same backbone weights and see the same
        batches. Results use seeds that no selection has used.
        """
        return stream_seed(self.protocol["seed"], "replicate" if split is Split.TEST else "selection", replicate)
