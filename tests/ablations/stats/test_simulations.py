"""What verdicts promise, counted over simulated studies with known truths; every simulation is seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ablations.stats import (
    Looks,
    Verdict,
    bca_interval,
    detectable,
    equivalence_p,
    estimate,
    holm,
    judge,
    power,
    replicates_for,
    spread,
)
from ablations.stats.significance import ALPHA, EXACT, signs
from tests.builders.frames import against_nothing, frame

Array = NDArray[np.float64]

OPEN, HELPS, HURTS, EQUIVALENT = range(4)
CODES = {
    Verdict.NONE: OPEN,
    Verdict.UNDECIDED: OPEN,
    Verdict.HELPS: HELPS,
    Verdict.HURTS: HURTS,
    Verdict.EQUIVALENT: EQUIVALENT,
}
BETWEEN, WITHIN = 0.6, 0.5  # standard deviations: of what the variants of a replicate share, and of what they do not
SPREAD = WITHIN * 2**0.5  # of a paired difference

STUDIES = 2000
LOOKS = Looks.planned(32, 4)
ALLOWED = 0.06  # what is promised is 5 %; two standard deviations of a count of 2,000 are the rest


@dataclass(frozen=True)
class Studies:
    """Many studies of one design: top-1 by study, variant and replicate; the first variant is the baseline."""

    top1: Array

    @classmethod
    def drawn(
        cls,
        seed: int,
        number: int,
        replicates: int,
        effects: Sequence[float] = (0.0,) * 4,
        *,
        skewed: bool = False,
    ) -> Studies:
        """Draws studies whose variants share a replicate's effect; `effects` are what variants truly add."""
        rng = np.random.default_rng(seed)
        size = (number, len(effects) + 1, replicates)
        # A gamma distribution of shape 1 has a skewness of 2: now and then a run goes very well.
        own = rng.gamma(1.0, size=size) - 1.0 if skewed else rng.standard_normal(size)
        shared = BETWEEN * rng.standard_normal((number, 1, replicates))
        return cls(70.0 + shared + WITHIN * own + np.array([0.0, *effects])[None, :, None])

    @property
    def differences(self) -> Array:
        """By study, contrast and replicate."""
        return self.top1[:, 1:] - self.top1[:, :1]

    @property
    def baselines(self) -> dict[str, str]:
        """What each variant is compared with, as `judge` takes it."""
        return against_nothing(*(f"v{number}" for number in range(1, self.top1.shape[1])))

    def cells(self, study: int) -> pd.DataFrame:
        """Returns a study as `judge` takes it."""
        return frame({name: list(values) for name, values in zip(self.baselines, self.top1[study], strict=True)})


def permutation_ps(differences: Array) -> Array:
    """Returns `sign_flip_p` of every row of differences, none of them 0, by few large products."""
    count = differences.shape[-1]
    chosen = signs(count)
    rows = differences.reshape(-1, count)
    as_far = np.empty(len(rows))
    step = max(1, 2**19 // len(chosen))  # rows at a time, so that sums stay in the processor's cache
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        sums = np.abs(chosen @ part.T)
        as_far[start : start + step] = np.count_nonzero(sums >= np.abs(part.sum(axis=1)) * (1 - 1e-9), axis=0)
    added = 0 if count <= EXACT else 1
    return ((as_far + added) / (len(chosen) + added)).reshape(differences.shape[:-1])


def equivalence_ps(differences: Array, margin: float) -> Array:
    """Returns `equivalence_p` of every row of differences."""
    rows = differences.reshape(-1, differences.shape[-1])
    return np.array([equivalence_p(row, margin) for row in rows]).reshape(differences.shape[:-1])


def corrected(ps: Array) -> Array:
    """Returns the p values of every study by Holm's method."""
    return np.array([holm(list(row)) for row in ps])


def verdicts(differences: Array, margin: float | None = None, looks: Looks | None = None) -> NDArray[np.int64]:
    """Judges studies by contrast: after their last replicate, or look by look until a contrast is decided.

    Args:
        differences: by study, contrast and replicate.
        margin: the least difference that matters; None to claim no equivalence.
        looks: when the studies are looked at.
    """
    sizes, shares = [differences.shape[-1]], [1.0]
    if looks:
        sizes, shares = list(looks.sizes), [looks.share(number) for number in range(len(looks.sizes))]
    p, p_equivalence = (np.ones(differences.shape[:2]) for _ in range(2))
    found = np.full(differences.shape[:2], OPEN)
    for size, share in zip(sizes, shares, strict=True):
        still = found == OPEN
        seen = differences[..., :size][still]
        p[still] = np.minimum(p[still], permutation_ps(seen) / share)
        if margin is not None:
            p_equivalence[still] = np.minimum(p_equivalence[still], equivalence_ps(seen, margin) / share)
        differs = corrected(p) <= ALPHA
        now = np.where(differs, np.where(differences[..., :size].mean(axis=2) > 0, HELPS, HURTS), OPEN)
        now = np.where(corrected(p_equivalence) <= ALPHA, EQUIVALENT, now)
        found = np.where(still, now, found)
    return found


def rate(claimed: NDArray[np.bool_]) -> float:
    """Returns the share of studies with a claim of any contrast."""
    return float(claimed.any(axis=1).mean())


def looks() -> Looks:
    assert LOOKS is not None
    return LOOKS


def differ(found: NDArray[np.int64]) -> NDArray[np.bool_]:
    made: NDArray[np.bool_] = np.isin(found, (HELPS, HURTS))
    return made


def judged(studies: Studies, study: int, margin: float, planned: Looks | None) -> list[int]:
    """Judges one study as a study is: from cells, adding replicates to those contrasts only that are not decided."""
    cells = studies.cells(study)
    if planned is None:
        return [CODES[made.verdict] for made in judge(cells, studies.baselines, margin)]
    kept = cells[cells["replicate"] < 0]
    going, before = list(studies.baselines), 0
    for size in planned.sizes:
        batch = cells["replicate"].between(before, size - 1) & cells["variant"].isin(going)
        # Rows are in the order in which runs finish.
        kept = kept.merge(cells[batch], how="outer").sample(frac=1, random_state=size)
        made = judge(kept, studies.baselines, margin, planned)
        going = [next(iter(studies.baselines)), *(one.variant for one in made if not one.is_decided)]
        before = size
    return [CODES[one.verdict] for one in made]


@pytest.mark.parametrize(
    ("replicates", "planned"),
    [(5, None), (8, None), (12, None), (20, None)] + [(most, Looks.planned(most, 4)) for most in (8, 12, 20, 32)],
    ids=str,
)
def test_what_is_simulated_fast_is_what_judge_says(replicates: int, planned: Looks | None) -> None:
    # Of differences and of margins for which every verdict is common.
    studies = Studies.drawn(replicates, 24, replicates, (0.0, 0.0, 1.0, -1.2), skewed=True)
    fast = verdicts(studies.differences, 0.75, planned)
    assert [judged(studies, number, 0.75, planned) for number in range(len(fast))] == fast.tolist()
    if replicates in {12, 20}:
        assert {OPEN, HELPS, HURTS, EQUIVALENT} == set(np.unique(fast))


@pytest.mark.parametrize("skewed", [False, True], ids=["normal", "skewed"])
@pytest.mark.parametrize("replicates", [5, 8, 12])
def test_variants_that_do_nothing_are_rarely_said_to_do_something(replicates: int, skewed: bool) -> None:
    studies = Studies.drawn(1, STUDIES, replicates, skewed=skewed)
    wrong = rate(differ(verdicts(studies.differences)))
    assert wrong <= ALLOWED
    # Five replicates decide nothing; more do, and so are wrong now and then. Four contrasts share a baseline and p
    # values are coarse, so what is promised is not used up.
    assert wrong == 0 if replicates == 5 else wrong > 0.012


def test_one_contrast_uses_up_what_is_promised() -> None:
    studies = Studies.drawn(2, 2 * STUDIES, 12, (0.0,))
    assert rate(differ(verdicts(studies.differences))) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("skewed", [False, True], ids=["normal", "skewed"])
def test_looking_on_the_way_is_not_wrong_more_often(skewed: bool) -> None:
    studies = Studies.drawn(3, STUDIES, looks().sizes[-1], skewed=skewed)
    assert 0.005 < rate(differ(verdicts(studies.differences, looks=looks()))) <= ALLOWED


class Greedy(Looks):
    """Looks each of which may spend all there is."""

    def share(self, look: int) -> float:
        del look
        return 1.0


def test_looks_that_all_spend_everything_would_be_wrong_too_often() -> None:
    # What the shares are for; and so the test above is able to fail.
    greedy = Greedy(looks().sizes)
    studies = Studies.drawn(3, STUDIES, looks().sizes[-1])
    assert rate(differ(verdicts(studies.differences, looks=greedy))) > 2 * rate(
        differ(verdicts(studies.differences, looks=looks()))
    )


def test_a_clear_difference_is_found_before_the_last_look() -> None:
    differences = Studies.drawn(4, 200, looks().sizes[-1], (2.0, -2.0, 0.0, 0.0)).differences
    # Whatever follows the second look: what was decided by then is not asked again.
    differences[..., looks().sizes[1] :] *= -1
    found = verdicts(differences, looks=looks())
    assert np.mean(found[:, 0] == HELPS) > 0.95
    assert np.mean(found[:, 1] == HURTS) > 0.95


@cache
def null_ps(n: int) -> Array:
    """p of three contrasts of studies that share nothing, without a difference."""
    return permutation_ps(np.random.default_rng(n).standard_normal((STUDIES, 3, n)))


def found(effect: float, n: int, contrasts: int, share: float = 1.0) -> float:
    """Returns in what share of studies the one contrast that differs is said to help."""
    differences = effect + np.random.default_rng(100 + n).standard_normal((STUDIES, n))
    ps = np.column_stack([permutation_ps(differences), null_ps(n)[:, : contrasts - 1]]) / share
    return float(np.mean((corrected(ps)[:, 0] <= 0.05) & (differences.mean(axis=1) > 0)))


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize(
    ("n", "effects"),
    [
        (8, (0.8, 1.2, 1.6)),
        (10, (0.7, 1.0, 1.3)),
        (12, (0.6, 0.9, 1.2)),
        (16, (0.5, 0.75, 1.0)),
        (24, (0.4, 0.6, 0.8)),
    ],
)
def test_power_is_how_often_a_difference_is_found(n: int, effects: tuple[float, ...], contrasts: int) -> None:
    for effect in effects:
        predicted = power(effect * 0.7, 0.7, n, contrasts)
        assert 0.05 < predicted < 0.999  # where there is something to predict
        assert predicted == pytest.approx(found(effect, n, contrasts), abs=0.05), effect


@pytest.mark.parametrize(("n", "effect"), [(11, 1.2), (20, 0.8)])
def test_power_of_a_look_is_that_of_what_it_may_spend(n: int, effect: float) -> None:
    predicted = power(effect, 1.0, n, contrasts=4, share=0.3)
    assert predicted == pytest.approx(found(effect, n, 4, share=0.3), abs=0.05)
    assert predicted < power(effect, 1.0, n, contrasts=4) - 0.1


@pytest.mark.parametrize(("n", "contrasts"), [(8, 1), (12, 4), (16, 4), (24, 1)])
def test_what_is_detectable_is_found_in_four_of_five_studies(n: int, contrasts: int) -> None:
    effect = detectable(1.0, n, contrasts)
    assert effect is not None
    assert found(effect, n, contrasts) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize(("effect", "contrasts"), [(1.3, 1), (1.0, 4), (0.7, 4)])
def test_so_many_replicates_find_a_difference_in_four_of_five_studies(effect: float, contrasts: int) -> None:
    n = replicates_for(effect, 1.0, contrasts)
    assert n is not None
    assert found(effect, n, contrasts) > 0.75
    assert found(effect, n - 2, contrasts) < 0.82


def drawn(kind: str, size: tuple[int, int]) -> Array:
    """Draws differences whose mean is 0."""
    rng = np.random.default_rng(5)
    draw: dict[str, Callable[[], Array]] = {
        "normal": lambda: rng.standard_normal(size),
        "gamma": lambda: rng.gamma(4.0, size=size) - 4.0,  # a skewness of 1
        "two gammas": lambda: rng.gamma(1.0, size=size) - rng.gamma(1.0, size=size),
        "two lognormals": lambda: rng.lognormal(0.0, 0.5, size) - rng.lognormal(0.0, 0.5, size),
    }
    return draw[kind]()


@pytest.mark.parametrize(
    ("kind", "n"),
    [("normal", 5), ("normal", 8), ("normal", 20)]
    + [(kind, n) for kind in ("gamma", "two gammas", "two lognormals") for n in (8, 20)],
)
def test_students_interval_holds_the_truth_in_19_of_20_studies(kind: str, n: int) -> None:
    made = [estimate(values) for values in drawn(kind, (20_000, n))]
    assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in made]) <= 0.97


def test_an_interval_of_another_confidence_holds_the_truth_so_often() -> None:
    made = [estimate(values, 0.8) for values in drawn("normal", (20_000, 8))]
    assert np.mean([one.low <= 0 <= one.high for one in made]) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(("n", "least", "most"), [(5, 0.79, 0.88), (20, 0.91, 0.955)])
def test_the_bootstraps_interval_holds_the_truth_less_often_the_fewer_replicates(
    n: int, least: float, most: float
) -> None:
    values = drawn("normal", (3000, n))
    held = [low <= 0 <= high for low, high in map(bca_interval, values)]
    assert least < np.mean(held) < most


def test_the_spread_of_contrasts_that_share_a_baseline_is_within_its_interval() -> None:
    many = Studies.drawn(6, 400, 6)
    made = [spread(many.cells(number), many.baselines) for number in range(400)]
    # As if contrasts were independent, it would hold 90 to 92 % only.
    held = np.mean([one is not None and one.low <= SPREAD <= one.high for one in made])
    assert 0.93 <= held <= 0.98
    assert np.median([one.value for one in made if one is not None]) == pytest.approx(SPREAD, rel=0.05)


MARGIN = 0.5


@pytest.mark.parametrize("contrasts", [1, 4])
@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("side", [-1, 1])
def test_what_differs_by_the_margin_is_rarely_called_equivalent(n: int, contrasts: int, side: int) -> None:
    # With a spread that the margin is large against: otherwise nothing would be called equivalent, right or wrong.
    studies = Studies.drawn(7, STUDIES, n, (side * MARGIN,) * contrasts)
    differences = studies.differences / 4 + side * MARGIN * 3 / 4
    assert differences.mean() == pytest.approx(side * MARGIN, abs=0.02)
    assert 0.02 < rate(verdicts(differences, MARGIN) == EQUIVALENT) <= ALLOWED


@pytest.mark.parametrize("contrasts", [1, 4])
def test_looking_on_the_way_does_not_call_more_equivalent(contrasts: int) -> None:
    planned = Looks.planned(32, contrasts)
    assert planned is not None
    differences = Studies.drawn(8, STUDIES, 32, (0.0,) * contrasts).differences / 4 + MARGIN
    # Whether it is said to differ is not asked here: who is said to, stops, and cannot be called equivalent later.
    claimed = np.zeros((STUDIES, contrasts), dtype=bool)
    least = np.ones((STUDIES, contrasts))
    for number, size in enumerate(planned.sizes):
        share = planned.share(number)
        least = np.minimum(least, equivalence_ps(differences[..., :size], MARGIN) / share)
        claimed |= corrected(least) <= 0.05
    assert 0.01 < rate(claimed) <= ALLOWED
    assert rate(verdicts(differences, MARGIN, planned) == EQUIVALENT) <= rate(claimed)


@pytest.mark.parametrize("n", [5, 8, 20])
def test_what_is_the_same_is_called_equivalent_where_the_margin_is_large(n: int) -> None:
    studies = Studies.drawn(9, 300, n)
    assert np.mean(verdicts(studies.differences, 5 * SPREAD) == EQUIVALENT) > 0.98
    # And hardly ever where it is small.
    assert np.mean(verdicts(studies.differences, SPREAD / 10) == EQUIVALENT) < 0.05
