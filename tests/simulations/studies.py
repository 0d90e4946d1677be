"""Simulated studies with known truths, and what is claimed of them; everything is drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ablations.stats.family import Inference, infer
from ablations.stats.interims import InterimAnalyses
from ablations.stats.significance import ALPHA, Responses, resolution
from ablations.stats.stability import Stability, stabilities

Array = NDArray[np.float64]

# How runs of a variant differ: standard deviation 1, mean 0. Skewed are exponential, and differences of them symmetric.
KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": lambda draws, size: draws.standard_normal(size),
    "t3": lambda draws, size: draws.standard_t(3, size) / math.sqrt(3),
    "skewed": lambda draws, size: 1 - draws.exponential(size=size),
    "tied": lambda draws, size: np.round(0.2 * draws.standard_normal(size), 1) / 0.2,  # steps of 0.1, SD 0.2
    "bounded": lambda draws, size: draws.uniform(-math.sqrt(3), math.sqrt(3), size),
}


def studies(
    kind: str, number: int, replicates: int, contrasts: int, *, effects: Sequence[float] = (), seed: int = 0
) -> Iterator[Array]:
    """Yields studies, (n, 1 + k) each, the baseline first, in standard deviations of a run; `effects` are true ones."""
    draws = np.random.default_rng([seed, replicates, contrasts, *kind.encode()])
    moved = np.zeros(1 + contrasts)
    moved[1 : 1 + len(effects)] = effects
    for _ in range(number):
        yield KINDS[kind](draws, (replicates, 1 + contrasts)) + moved


def responses(values: Array) -> Responses:
    """Returns what the contrasts of a study with its first variant are tested with."""
    return Responses(values, values[:, 1:] - values[:, :1], np.full(values.shape[1] - 1, 2.0))


def inferences(values: Array, margin: float, interims: InterimAnalyses | None = None) -> list[Inference]:
    """Tests a study; under looks, contrasts that are decided get no more replicates."""
    if interims is None:
        return infer(lambda *_: responses(values), values.shape[1] - 1, margin, None)
    seen = values.copy()

    def at(size: int | None, active: Sequence[int]) -> Responses:
        if size is None:
            return responses(seen)
        stopped = [1 + place for place in range(values.shape[1] - 1) if place not in active]
        before = interims.sizes[interims.sizes.index(size) - 1] if size > interims.sizes[0] else size
        for column in stopped:
            seen[before:, column] = np.nan
        return responses(seen[:size])

    return infer(at, values.shape[1] - 1, margin, interims)


def differs(inference: Inference) -> bool:
    """Says whether a difference is claimed."""
    return inference.p <= ALPHA


def is_equivalent(inference: Inference) -> bool:
    """Says whether equivalence is claimed."""
    return inference.p_equivalence <= ALPHA


def stability(values: Array, margin: float) -> list[Stability]:
    """Returns how stable the variants of a study are, the baseline first."""
    names = [str(place) for place in range(values.shape[1])]
    return list(stabilities(names, list(values.T), margin, resolution(values)).values())
