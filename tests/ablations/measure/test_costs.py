from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ablations.measure.costs import PLAIN, NetworkCost, Speed, as_stored, from_stored

FINITE = st.floats(-1e6, 1e6)
SPEEDS = st.none() | st.builds(Speed, FINITE, st.lists(FINITE, max_size=9).map(tuple))
COSTS = st.builds(
    NetworkCost, st.integers(0, 10**9), st.none() | FINITE, SPEEDS, SPEEDS, st.text(max_size=20), SPEEDS, SPEEDS
)


@given(st.dictionaries(st.sampled_from([PLAIN, "groups=2", "a b", "ä"]), COSTS))
def test_json_preserves_costs(costs: dict[str, NetworkCost]) -> None:
    assert from_stored(json.loads(json.dumps(as_stored(costs)))) == costs


def test_a_failed_network_has_only_a_reason() -> None:
    failed = NetworkCost(failed="RuntimeError: too large")
    assert (failed.train, failed.test, failed.peak_memory_mib) == (None, None, None)
    assert from_stored(as_stored({"sa": failed})) == {"sa": failed}


def test_costs_that_were_stored_without_captured_times_have_none() -> None:
    stored = as_stored({"sa": NetworkCost(10, 1.0, Speed(2.0, (0.1,)), Speed(1.0, (0.2,)))})
    for key in ("captured_train", "captured_test"):
        del stored["sa"][key]
    (cost,) = from_stored(stored).values()
    assert cost.train is not None
    assert (cost.captured_train, cost.captured_test) == (None, None)
