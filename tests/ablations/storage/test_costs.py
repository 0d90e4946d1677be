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


def test_a_study_that_measured_nothing_remembers_no_machine() -> None:
    assert stored_costs({}) == {}


def test_what_is_stored_is_read_as_it_was_machine_by_machine() -> None:
    made = design()
    here, there = machine_of(made, usual_costs(made)), machine(gpu="Other")
    assert stored_costs(stored_attributes(here, there)) == {here.key: here, there.key: there}


def test_the_machine_that_was_stored_last_is_the_last_one_whatever_its_clock_says() -> None:
    early, late = replace(machine(), taken="2026-11-01"), replace(machine(cpu="other"), taken="2025-01-01")
    assert list(stored_costs(stored_attributes(early, late))) == [early.key, late.key]


@pytest.mark.parametrize("name", ["cpu", "gpu", "kernels", "python", "torch", "threads", "device", "system"])
def test_what_changes_the_speed_makes_another_machine(name: str) -> None:
    assert machine(**{name: "other"}).key != machine().key


@pytest.mark.parametrize("name", ["commit", "mlflow", "optuna", "numpy", "torchvision"])
def test_what_does_not_change_it_makes_none(name: str) -> None:
    assert machine(**{name: "other"}).key == machine().key


def test_what_was_measured_last_of_a_network_counts_and_networks_of_a_name_are_told_apart() -> None:
    first = CostRun({PLAIN: SMALL, "sa": SA}, {PLAIN: NetworkCost(1), "sa": NetworkCost(2)})
    again, other = CostRun({"sa": SA}, {"sa": NetworkCost(3)}), CostRun({PLAIN: LARGE}, {PLAIN: NetworkCost(4)})
    measured = machine(first, again, other)
    assert measured.of("sa", SA) == NetworkCost(3)
    assert measured.of(PLAIN, SMALL) == NetworkCost(1)
    assert measured.of(PLAIN, LARGE) == NetworkCost(4)
    assert measured.of("sa", OTHER) is None
    assert measured.of("sa 2", SA) is None
