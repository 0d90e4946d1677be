from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ablations.analysis.costs import collect_costs
from ablations.measure.costs import NetworkCost
from ablations.reporting.text.costs import cost_verdict, failures_sentence, measured_on, relative_time
from ablations.stats import Estimate
from ablations.stats.costs import CostContrast, CostVerdict
from tests.builders.cells import design
from tests.builders.costs import HERE, TAKEN, machine_of, stored_attributes, usual_costs


def test_a_relative_time_has_its_interval_if_any() -> None:
    known = Estimate(6, 1.284, 1.27, 1.3)
    assert relative_time(known) == "1.28 [1.27, 1.30]"
    assert relative_time(known, with_interval=False) == "1.28"
    assert relative_time(Estimate(1, 1.284, math.nan, math.nan)) == "1.28"
    assert relative_time(None) == "–"


@pytest.mark.parametrize("verdict", list(CostVerdict))
def test_the_verdict_same_has_its_margin(verdict: CostVerdict) -> None:
    contrast = CostContrast("a", "b", 1.0, 0.9, 1.1, 6, 0.5, 0.5, verdict)
    within = " within 2.5 %" if verdict is CostVerdict.SAME else ""
    assert cost_verdict(contrast, 0.025) == verdict.value + within
    assert cost_verdict(None, 0.025) == ""


@pytest.mark.parametrize(("device", "named"), [("cpu", "Machine & Co, 2 cores, 2 threads, "), ("cuda", "One GPU, ")])
def test_the_measurement_is_described_by_machine_date_and_copies(device: str, named: str) -> None:
    made = design()
    costs = dict(usual_costs(made))
    costs["groups=2"] = usual_costs(made, copies=12)["groups=2"]
    environment = {**HERE, "device": device, "gpu": "One GPU"}
    found = collect_costs(stored_attributes(machine_of(made, costs, environment)), made)
    assert found is not None
    assert measured_on(found) == f"on {named}torch 2.11.0, {TAKEN[:10]}; n = 8 to 12 copies per network"
    assert measured_on(replace(found, variants={"none": found.of("none")})).endswith("n = 8 copies per network")


def test_variants_that_could_not_be_measured_are_named_with_the_reason() -> None:
    made = design()
    costs = usual_costs(made) | {"groups=2": NetworkCost(failed="too large")}
    found = collect_costs(stored_attributes(machine_of(made, costs)), made)
    assert found is not None
    assert "groups=2 (too large)" in failures_sentence(found)
    usual = collect_costs(stored_attributes(machine_of(made, usual_costs(made))), made)
    assert usual is not None
    assert failures_sentence(usual) == ""
