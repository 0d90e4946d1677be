from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sa_core.seeds import stream_seed


def test_the_seed_of_a_stream_never_changes() -> None:
    # Other values would change the initial weights of every study.
    assert stream_seed(0, "attention") == 4923990407903767228
    assert stream_seed(7, "x") == 7681994516342945507


@given(st.lists(st.one_of(st.integers(), st.text()), max_size=4))
def test_a_seed_has_63_bits(parts: list[int | str]) -> None:
    assert 0 <= stream_seed(*parts) < 2**63


def test_streams_of_different_names_or_seeds_differ() -> None:
    seeds = {stream_seed(seed, name) for seed in range(100) for name in ("attention", "data", "augment")}
    assert len(seeds) == 300
