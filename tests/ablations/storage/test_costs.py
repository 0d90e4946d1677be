from __future__ import annotations

from dataclasses import replace

import pytest

from ablations.measure.costs import PLAIN, NetworkCost
from ablations.storage.costs import CostRun, MachineCosts, stored_costs
from tests.builders.cells import design
from tests.builders.costs import HERE, TAKEN, machine_of, stored_attributes, usual_costs

SMALL, LARGE = ({"model": {"name": name}, "attention": {"name": "none"}} for name in ("resnet8", "resnet20"))
SA, OTHER = ({"model": SMALL["model"], "attention": {"name": "sa", "groups": groups}} for groups in (2, 4))


def machine(*runs: CostRun, **environment: str) -> MachineCosts:
    return MachineCosts(HERE | environment, TAKEN, runs)


def test_a_study_without_measurements_has_no_machines() -> None:
    assert stored_costs({}) == {}


def test_stored_costs_are_read_back_unchanged_by_machine() -> None:
    study = design()
    here, there = machine_of(study, usual_costs(study)), machine(gpu="Other")
    assert stored_costs(stored_attributes(here, there)) == {here.key: here, there.key: there}


def test_the_last_stored_machine_is_last_whatever_its_clock() -> None:
    early, late = replace(machine(), taken="2026-11-01"), replace(machine(cpu="other"), taken="2025-01-01")
    assert list(stored_costs(stored_attributes(early, late))) == [early.key, late.key]


@pytest.mark.parametrize("name", ["cpu", "gpu", "kernels", "python", "torch", "threads", "device", "system"])
def test_settings_that_affect_speed_identify_the_machine(name: str) -> None:
    assert machine(**{name: "other"}).key != machine().key


@pytest.mark.parametrize("name", ["commit", "mlflow", "optuna", "numpy", "torchvision"])
def test_settings_that_do_not_affect_speed_do_not_identify_the_machine(name: str) -> None:
    assert machine(**{name: "other"}).key == machine().key


def test_the_latest_cost_of_a_network_counts_and_settings_distinguish_networks_of_one_name() -> None:
    first = CostRun({PLAIN: SMALL, "sa": SA}, {PLAIN: NetworkCost(1), "sa": NetworkCost(2)})
    again, other = CostRun({"sa": SA}, {"sa": NetworkCost(3)}), CostRun({PLAIN: LARGE}, {PLAIN: NetworkCost(4)})
    measured = machine(first, again, other)
    assert measured.of("sa", SA) == NetworkCost(3)
    assert measured.of(PLAIN, SMALL) == NetworkCost(1)
    assert measured.of(PLAIN, LARGE) == NetworkCost(4)
    assert measured.of("sa", OTHER) is None
    assert measured.of("sa 2", SA) is None
