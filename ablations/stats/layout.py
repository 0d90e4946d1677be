"""The layout of a study: one metric by replicate and variant, and the contrasts computed from it.

A contrast pairs a variant with its baseline by replicate. If a baseline has replicates that none of its variants has,
they are distributed equally over the pairs, and each pair uses the mean of its baseline runs: a baseline is in every
contrast, so reducing its noise helps all of them. Contrasts of fewer than 6 pairs use the paired runs alone, because
the moderated t-test derives their variance from single runs, which is invalid if replicates have common variation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ablations.stats.significance import FLIPPED, Array, Responses


@dataclass(frozen=True)
class Layout:
    """A metric of ended cells.

    Attributes:
        variants, replicates: labels of the columns and rows of `values`; replicates ascend.
        values: by replicate and variant, (n, g); NaN without a result.
        ended: whether a cell has ended, with or without a result.
    """

    variants: tuple[str, ...]
    replicates: NDArray[np.int64]
    values: Array
    ended: NDArray[np.bool_]

    @classmethod
    def of(cls, cells: pd.DataFrame, metric: str) -> Layout:
        """Arranges a frame of ended cells with `variant`, `replicate` and the metric, NaN without a result.

        Raises:
            ValueError: if a replicate of a variant occurs twice.
        """
        twice = cells[cells.duplicated(["variant", "replicate"])]
        if len(twice):
            raise ValueError(f"replicate {twice['replicate'].iloc[0]} of {twice['variant'].iloc[0]} is there twice")
        columns, variants = pd.factorize(cells["variant"])
        replicates, rows = np.unique(cells["replicate"].to_numpy(dtype=np.int64), return_inverse=True)
        values, ended = (
            np.full((len(replicates), len(variants)), np.nan),
            np.zeros((len(replicates), len(variants)), bool),
        )
        values[rows, columns] = cells[metric].to_numpy(dtype=np.float64)
        ended[rows, columns] = True
        return cls(tuple(map(str, variants)), replicates, values, ended)

    @cached_property
    def places(self) -> dict[str, int]:
        """The column of each variant."""
        return {name: place for place, name in enumerate(self.variants)}

    def column(self, variant: str) -> Array:
        """Returns a variant's values by replicate, (n,); all NaN if none of its cells has ended."""
        place = self.places.get(variant)
        return self.values[:, place] if place is not None else np.full(len(self.replicates), np.nan)

    def results(self, variant: str) -> Array:
        """Returns a variant's results in the order of replicates."""
        column = self.column(variant)
        return column[~np.isnan(column)]

    def lost(self, variant: str) -> int:
        """Counts the replicates of a variant that ended without a result."""
        place = self.places.get(variant)
        return int(np.count_nonzero(self.ended[:, place] & np.isnan(self.values[:, place]))) if place is not None else 0

    def has_ended(self, variant: str, size: int) -> bool:
        """Returns whether the first `size` replicates of a variant have all ended."""
        place = self.places.get(variant)
        return place is not None and int(np.count_nonzero(self.ended[self.replicates < size, place])) == size

    def before(self, size: int) -> Layout:
        """Returns the first `size` replicates."""
        first = self.replicates < size
        return Layout(self.variants, self.replicates[first], self.values[first], self.ended[first])

    def over(self, replicates: NDArray[np.int64]) -> Layout:
        """Returns the layout with a row for each of `replicates`, an ascending superset of its replicates."""
        rows = np.searchsorted(replicates, self.replicates)
        values, ended = (
            np.full((len(replicates), len(self.variants)), np.nan),
            np.zeros((len(replicates), len(self.variants)), bool),
        )
        values[rows], ended[rows] = self.values, self.ended
        return Layout(self.variants, replicates, values, ended)

    def responses(self, contrasts: Mapping[str, str]) -> Responses:
        """Returns the responses of contrasts, given the baseline of each variant."""
        there = ~np.isnan(self.values)
        of_baseline: dict[str, tuple[Array, float]] = {}
        for baseline in dict.fromkeys(contrasts.values()):
            partners = [name for name, other in contrasts.items() if other == baseline]
            paired = np.asarray(there[:, self._known(partners)].any(axis=1), dtype=np.bool_)
            of_baseline[baseline] = _with_extras(self.column(baseline), paired)
        differences, weights = [], []
        for variant, baseline in contrasts.items():
            (means, weight), results = of_baseline[baseline], self.column(variant)
            if np.count_nonzero(~np.isnan(results - means)) < FLIPPED:
                means, weight = self.column(baseline), 1.0
            differences.append(results - means)
            weights.append(1 + weight)
        stacked = np.column_stack(differences) if differences else np.empty((len(self.values), 0))
        known = self._known(dict.fromkeys([*contrasts, *contrasts.values()]))
        return Responses(self.values[:, known], stacked, np.array(weights))

    def _known(self, variants: Iterable[str]) -> list[int]:
        return [self.places[name] for name in variants if name in self.places]


def _with_extras(values: Array, paired: NDArray[np.bool_]) -> tuple[Array, float]:
    """Returns a baseline's values, unpaired ones averaged into the pairs, and their sum of squared weights."""
    is_pair = paired & ~np.isnan(values)
    extras = values[~paired & ~np.isnan(values)]
    each = len(extras) // max(1, int(is_pair.sum()))
    if not each:
        return values, 1.0
    shared = extras[: each * int(is_pair.sum())].reshape(-1, each)
    means = np.full(len(values), np.nan)
    means[is_pair] = (values[is_pair] + shared.sum(axis=1)) / (1 + each)
    return means, 1 / (1 + each)
