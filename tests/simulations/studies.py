"""Simulated studies with known effects, and their inferences; all random numbers are seeded."""

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

# Distributions of a variant's runs, with mean 0 and standard deviation 1. Differences of skewed runs are symmetric.
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
    """Yields studies, (n, 1 + k) each, the baseline first; true `effects` are in standard deviations of a run."""
    draws = np.random.default_rng([seed, replicates, contrasts, *kind.encode()])
    moved = np.zeros(1 + contrasts)
    moved[1 : 1 + len(effects)] = effects
    for _ in range(number):
        yield KINDS[kind](draws, (replicates, 1 + contrasts)) + moved


def responses(values: Array) -> Responses:
    """Returns the data for tests of a study's contrasts with its first variant."""
    return Responses(values, values[:, 1:] - values[:, :1], np.full(values.shape[1] - 1, 2.0))


def inferences(values: Array, margin: float, interims: InterimAnalyses | None = None) -> list[Inference]:
    """Tests a study; with interim analyses, decided contrasts get no more replicates."""
    if interims is None:
        return infer(lambda *_: responses(values), values.shape[1] - 1, margin, None)
    observed = values.copy()

    def at(size: int | None, active: Sequence[int]) -> Responses:
        if size is None:
            return responses(observed)
        stopped = [1 + index for index in range(values.shape[1] - 1) if index not in active]
        previous = interims.sizes[interims.sizes.index(size) - 1] if size > interims.sizes[0] else size
        observed[previous:, stopped] = np.nan
        return responses(observed[:size])

    return infer(at, values.shape[1] - 1, margin, interims)


def differs(inference: Inference) -> bool:
    """Whether a difference is claimed."""
    return inference.p <= ALPHA


def is_equivalent(inference: Inference) -> bool:
    """Whether equivalence is claimed."""
    return inference.p_equivalence <= ALPHA


def stability(values: Array, margin: float) -> list[Stability]:
    """Returns the stability of the variants of a study, the baseline first."""
    names = [str(index) for index in range(values.shape[1])]
    return list(stabilities(names, list(values.T), margin, resolution(values)).values())
