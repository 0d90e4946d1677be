"""Cells and the design that they belong to.

A cell is one training run: variant x replicate x protocol. Its key is a hash of everything that affects its result, so
that a trained cell is recognized.

There are two kinds of cells (`Split`). Cells of results are trained on all training images and evaluated on the test
images. Cells of a selection (by a search or tuning) are trained without the validation images, which are a part of the
training images, and evaluated on them: no selection uses a test image. The two kinds never share a key or a seed.

With tuning (`ablations.design.tuning`) each variant has results under two recipes: the common one, and its best one.
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
    """The images that a cell is evaluated on: test images for results, validation images for selection."""

    TEST = "test"
    VALIDATION = "validation"


@dataclass(frozen=True)
class Cell:
    """One training run: the unit of work, of resuming and of storage.

    Attributes:
        replicate: number of the replicate, or of the trial in tuning.
        key: hash of everything that affects its result.
        tuning: id of the tuning of which the cell is a trial; otherwise empty.
        is_tested_once: whether it is evaluated only after its last epoch, as results are in studies with a selection,
            in which test images must not be used before.
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
        """Display name: variant and replicate, or variant and trial or selection."""
        if self.split is Split.TEST:
            return f"{self.variant.name} {'tuned ' if self.variant.recipe else ''}r{self.replicate}"
        return f"{self.variant.name} {f'trial {self.replicate}' if self.tuning else 'selection'}"


@dataclass(frozen=True)
class Design:
    """The design of a study: its variants, their protocol, and the number of replicates.

    Attributes:
        variants: all variants; of a search, those sampled so far.
        baseline: a variant, or a level: then each variant is compared with the one that differs only in this level.
        protocol: options that all cells share.
        replicates: number of replicates; with `replicates=auto`, at the first interim analysis.
        factors: the levels of each factor, by its dotted name.
        max_parameters: limit for variants that a search confirms; 0 means no limit.
        confirm: maximum number of variants that a search confirms.
        margin: equivalence margin in the metric's unit.
        replicates_max: maximum number with `replicates=auto`, otherwise 0.
        baseline_replicates: number of replicates of baselines if greater than `replicates`.
        varied: options that differ between variants: factors, and options that named variants set.
        tuning: search space and budget of tuning; None without tuning.
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
        """The factor of which the baseline is a level; None if it is a variant."""
        if any(variant.name == self.baseline for variant in self.variants):
            return None
        for path, levels in self.factors.items():
            if any(level_name(path, level) == self.baseline for level in levels):
                return path
        return None

    @property
    def validation(self) -> float:
        """The share of the training images that is used for selection; 0 without selection."""
        return self.tuning.validation if self.tuning else float(self.protocol["data"].get("validation", 0.0))

    @property
    def named(self) -> tuple[Variant, ...]:
        """The named variants, which are part of both phases of a search."""
        return tuple(variant for variant in self.variants if not variant.levels)

    @property
    def directions(self) -> list[str]:
        """The direction of each objective, `maximize` or `minimize`."""
        return [OBJECTIVES[objective] for objective in self.objectives]

    @property
    def baselines(self) -> dict[str, str]:
        """The baseline of each variant, by name; baselines map to themselves."""
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
        """The number of replicates of each variant, by name."""
        more = set(self.baselines.values()) if self.baseline_replicates > self.replicates else set()
        names = (variant.name for variant in self.variants)
        return {name: self.baseline_replicates if name in more else self.replicates for name in names}

    def cells(self) -> Iterator[Cell]:
        """Yields the cells of results, replicate by replicate, so that an interrupted study is balanced."""
        sizes = self.sizes
        for replicate in range(max(sizes.values(), default=0)):
            for variant in self.variants:
                if replicate < sizes[variant.name]:
                    yield self.cell(variant, replicate)

    def selection_cells(self) -> Iterator[Cell]:
        """Yields the cells of a search's selection, one per variant; none for other sweeps."""
        if self.is_search:
            for variant in self.variants:
                yield self.cell(variant, 0, Split.VALIDATION)

    def cell(self, variant: Variant, replicate: int, split: Split = Split.TEST) -> Cell:
        """Returns the cell of a variant and a replicate."""
        identity = {"protocol": self.protocol, "network": variant.network, "replicate": replicate}
        identity |= {} if split is Split.TEST else {"split": split.value}
        identity |= {"recipe": variant.recipe} if variant.recipe else {}
        is_trial = self.tuning is not None and split is Split.VALIDATION
        if self.tuning and is_trial:  # the share of a search is part of the protocol
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
        """Returns the seed of the cells of a replicate, or of the trials with this number.

        It does not depend on the variant: the networks of a replicate start from the same backbone weights and see the
        same batches. Results and selection have different seeds.
        """
        return stream_seed(self.protocol["seed"], "replicate" if split is Split.TEST else "selection", replicate)
