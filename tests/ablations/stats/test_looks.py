from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.stats import Looks, fewest_pairs, least_p
from ablations.stats.significance import ALPHA

MOST = st.integers(2, 150)
CONTRASTS = st.integers(1, 40)


def can_decide(n: int, contrasts: int, share: float) -> bool:
    """Whether differences of one sign would be a verdict, all contrasts being as clear."""
    return contrasts * least_p([1.0] * n) / share <= ALPHA * (1 + 1e-9)


@given(MOST, CONTRASTS)
def test_looks_ascend_to_the_most_replicates_and_spend_all_there_is(most: int, contrasts: int) -> None:
    planned = Looks.planned(most, contrasts)
    if planned is None:
        return
    assert list(planned.sizes) == sorted(set(planned.sizes))
    assert planned.sizes[-1] == most
    shares = [planned.share(number) for number in range(len(planned.sizes))]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0


@given(MOST, CONTRASTS)
def test_the_first_look_is_the_first_that_can_decide(most: int, contrasts: int) -> None:
    planned = Looks.planned(most, contrasts)
    if planned is None:
        return
    first = planned.sizes[0]
    assert can_decide(first, contrasts, planned.share(0))
    if len(planned.sizes) == 1:  # then an earlier one would have left no batch to the most
        return
    assert not any(can_decide(n, contrasts, (n / most) ** 2) for n in range(2, first))


@given(MOST, CONTRASTS)
def test_there_are_looks_where_the_most_replicates_could_decide_without_them(most: int, contrasts: int) -> None:
    assert (Looks.planned(most, contrasts) is None) == (most < fewest_pairs(contrasts))


@given(MOST, CONTRASTS)
def test_a_batch_is_a_third_of_what_there_is_and_three_at_least_but_for_the_last(most: int, contrasts: int) -> None:
    planned = Looks.planned(most, contrasts)
    if planned is None:
        return
    for before, after in itertools.pairwise(planned.sizes[:-1]):
        assert max(3, before / 3 - 0.5) <= after - before <= max(3, before / 3 + 0.5)
    if len(planned.sizes) > 1:
        before, after = planned.sizes[-2:]
        assert after - before <= max(3, before / 3 + 0.5) + 2


def test_a_last_batch_is_of_more_than_two() -> None:
    plans = [Looks.planned(most, contrasts) for most in range(2, 60) for contrasts in (1, 4)]
    assert not [one.sizes for one in plans if one and len(one.sizes) > 1 and one.sizes[-1] - one.sizes[-2] <= 2]


def test_every_look_can_decide() -> None:
    blind = [
        (planned.sizes, number)
        for most in range(2, 60)
        for contrasts in (1, 4, 12)
        if (planned := Looks.planned(most, contrasts))
        for number, n in enumerate(planned.sizes)
        if not can_decide(n, contrasts, planned.share(number))
    ]
    assert blind == []


def test_the_first_look_can_decide_where_p_is_sampled() -> None:
    planned = Looks.planned(150, 20)
    assert planned is not None
    assert planned.sizes[0] > 14
    assert 20 * least_p([1.0] * planned.sizes[0]) / planned.share(0) <= ALPHA


@pytest.mark.parametrize(
    ("most", "contrasts", "sizes"),
    [
        (5, 1, None),
        (6, 1, (6,)),
        (7, 4, None),
        (8, 4, (8,)),
        (12, 1, (7, 12)),
        (16, 4, (9, 12, 16)),
        (32, 4, (11, 15, 20, 27, 32)),
    ],
)
def test_looks_of_a_study(most: int, contrasts: int, sizes: tuple[int, ...] | None) -> None:
    made = Looks.planned(most, contrasts)
    assert (made and made.sizes) == sizes


def test_a_look_spends_the_square_of_replicates_that_it_adds() -> None:
    made = Looks((8, 16, 32))
    assert [made.share(number) for number in range(3)] == [64 / 1024, 192 / 1024, 768 / 1024]
    assert Looks((8,)).share(0) == 1


def test_looks_are_stored_as_their_sizes() -> None:
    planned = Looks.planned(32, 4)
    assert planned is not None
    assert Looks.stored(list(planned.sizes)) == planned
    assert Looks.stored(None) is None
    assert Looks.stored([]) is None
