from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.analysis.costs import collect_costs, costs_on
from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.measure.costs import PLAIN, NetworkCost
from ablations.stats.costs import CostVerdict
from ablations.storage.costs import CostRun, MachineCosts
from tests.builders.analyses import search_analysis, study_analysis
from tests.builders.cells import design
from tests.builders.costs import (
    HERE,
    TAKEN,
    costs_of,
    machine_of,
    ratios,
    speed,
    stored_attributes,
    usual_attributes,
    usual_costs,
)
from tests.builders.tuned import TunableLauncher, TunedStudy


def backbones() -> Design:
    overrides = ["device=cpu", "sweep=backbones", "replicates=2", "sweep.factors.model=[resnet8,resnet20]"]
    return make_design(compose_config(overrides))


def verdicts(made: Design, margin: float = 0.05, **times: list[float]) -> dict[str, CostVerdict]:
    costs = costs_of(made, train_time_ratio=times)
    return {contrast.variant: contrast.verdict for contrast in costs.judge("train", margin)}


def test_a_study_that_measured_nothing_has_no_costs() -> None:
    assert collect_costs({}, design()) is None
    others = replace(design(), variants=tuple(replace(one, name=f"{one.name}'") for one in design().variants[1:]))
    assert collect_costs(usual_attributes(design()), others) is None


def test_a_variant_has_ratios_over_copies_speed_and_memory() -> None:
    costs = collect_costs(usual_attributes(design()), design())
    assert costs is not None
    cost = costs.of("groups=4")
    assert cost.train_time is not None
    assert cost.train_time.mean == pytest.approx(1.2)
    assert cost.train_time.low < 1.2 < cost.train_time.high
    assert cost.train_images_per_second == pytest.approx(1000 / 1.2)
    assert cost.metrics == pytest.approx(
        {
            "train_time_ratio": 1.2,
            "test_time_ratio": 1.1,
            "train_images_per_second": 1000 / 1.2,
            "test_images_per_second": 3000 / 1.1,
            "peak_memory_mib": 13.5,
        }
    )
    assert costs.of("unknown").metrics == {}
    assert set(costs.metrics) == {"none", "groups=2", "groups=4"}


def test_the_machine_that_was_measured_last_is_the_one_that_counts() -> None:
    made = design()
    here = machine_of(made, usual_costs(made))
    there = machine_of(made, {"groups=4": NetworkCost(1, 99.0)}, HERE | {"cpu": "other"})
    costs = collect_costs(stored_attributes(here, there), made)
    assert costs is not None
    assert costs.metrics == {"groups=4": {"peak_memory_mib": 99.0}}
    assert costs.machine.environment["cpu"] == "other"


def test_what_failed_has_a_reason_and_no_numbers() -> None:
    made = design()
    costs = collect_costs(stored_attributes(machine_of(made, {"groups=2": NetworkCost(failed="too large")})), made)
    assert costs is not None
    cost = costs.of("groups=2")
    assert (cost.failed, cost.metrics, cost.train_time) == ("too large", {}, None)
    assert math.isnan(cost.peak_memory_mib)


def test_verdicts_say_slower_faster_same_and_undecided() -> None:
    made = make_design(compose_config(["device=cpu", "sweep.factors.attention.groups=[1,2,4,8]"]))
    wide = [0.8, 1.3, 0.9, 1.25, 0.85, 1.2, 0.9, 1.1]
    found = verdicts(
        made,
        none=ratios(1.0),
        **{"groups=1": ratios(1.3), "groups=2": ratios(0.7), "groups=4": ratios(1.02), "groups=8": wide},
    )
    assert found == {
        "groups=1": CostVerdict.SLOWER,
        "groups=2": CostVerdict.FASTER,
        "groups=4": CostVerdict.SAME,
        "groups=8": CostVerdict.UNDECIDED,
    }


def test_the_plain_network_is_the_measure_and_not_its_second_copy() -> None:
    # Of the plain network the ratios are those of another copy: noise, which is no part of a contrast to it.
    found = verdicts(design(), none=ratios(1.2), **{"groups=2": ratios(1.2), "groups=4": ratios(1.0)})
    assert found == {"groups=2": CostVerdict.SLOWER, "groups=4": CostVerdict.SAME}


def test_a_single_copy_has_no_verdict() -> None:
    found = verdicts(design(), none=[1.0], **{"groups=2": [1.2], "groups=4": [1.0]})
    assert set(found.values()) == {CostVerdict.NONE}


def test_each_backbone_is_compared_with_its_own_plain_network() -> None:
    made = backbones()
    costs = costs_on(machine_of(made, usual_costs(made)), made)
    assert len(costs.machine.runs) == 2
    found = {contrast.variant: contrast for contrast in costs.judge("train", 0.05)}
    assert set(found) == {"resnet8, sa", "resnet20, sa"}
    assert found["resnet8, sa"].baseline == "resnet8, none"
    assert found["resnet20, sa"].ratio == pytest.approx(1.3)  # and not over the ratio of the plain one's second copy


def test_copies_of_different_runs_are_never_paired() -> None:
    made = make_design(compose_config(["device=cpu", "sweep=shuffle"]))
    baseline, other = made.baseline, "shuffle=off"
    assert made.baselines[other] == baseline != "none"
    networks = {variant.name: variant.network for variant in made.variants}
    networks[PLAIN] = networks["none"]

    def run(**times: float) -> CostRun:
        costs = {name: NetworkCost(1, 1.0, speed(ratios(time))) for name, time in times.items()}
        return CostRun({name: networks[name] for name in times}, costs)

    apart = MachineCosts(HERE, TAKEN, (run(**{PLAIN: 1.0, baseline: 1.2}), run(**{PLAIN: 1.0, other: 1.3})))
    together = MachineCosts(HERE, TAKEN, (*apart.runs, run(**{PLAIN: 1.0, baseline: 1.2, other: 1.3})))
    for machine, copies in ((apart, 0), (together, 8)):
        found = {contrast.variant: contrast for contrast in costs_on(machine, made).judge("train", 0.05)}
        assert found[other].n == copies
    assert found[other].ratio == pytest.approx(1.3 / 1.2)


def test_a_network_that_was_changed_since_has_no_costs_under_its_name() -> None:
    made = design()
    changed = tuple(
        replace(one, attention={**one.attention, "norm": "layer"}) if one.name == "groups=4" else one
        for one in made.variants
    )
    costs = collect_costs(usual_attributes(made), replace(made, variants=changed))
    assert costs is not None
    assert set(costs.variants) == {"none", "groups=2"}
    assert [contrast.variant for contrast in costs.judge("train", 0.05)] == ["groups=2"]


def test_the_contrasts_of_a_study_are_judged_once_and_by_mode(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    contrasts = analysis.cost_contrasts
    assert contrasts is analysis.cost_contrasts
    names = ["groups=2", "groups=4"]
    assert {mode: list(found) for mode, found in contrasts.items()} == {"train": names, "test": names}
    assert contrasts["train"]["groups=4"].verdict is CostVerdict.SLOWER
    nothing = replace(analysis, attributes={**analysis.attributes, "costs": []})
    assert nothing.costs is None
    assert nothing.cost_contrasts == {"train": {}, "test": {}}


def test_a_search_has_the_costs_of_the_variants_that_it_confirmed(tmp_path: Path) -> None:
    analysis = search_analysis(tmp_path)
    assert analysis.costs is not None
    assert set(analysis.costs.variants) == {variant.name for variant in analysis.design.variants}
    assert len(analysis.tried.variants) > len(analysis.design.variants)


def test_a_tuned_study_has_the_same_costs_at_its_best_recipes(tmp_path: Path) -> None:
    study = TunedStudy(tmp_path / "study")
    study.drive(TunableLauncher(study.config))
    study.store.remember("costs", usual_attributes(study.design)["costs"])
    analysis = study.analysis()
    assert analysis.costs is not None
    assert analysis.at_best is not None
    assert analysis.at_best.costs is not None
    assert analysis.at_best.costs.metrics == analysis.costs.metrics


def test_a_thousand_variants_are_collected_at_once() -> None:
    made = design()
    sa = made.variants[1]
    many = replace(made, variants=tuple(replace(sa, name=f"v{number}") for number in range(1000)))
    cost = usual_costs(made)["groups=2"]
    runs = tuple(
        CostRun(*({f"v{number}": each for number in range(first, first + 8)} for each in (sa.network, cost)))
        for first in range(0, 1000, 8)
    )
    costs = costs_on(MachineCosts(HERE, TAKEN, runs), many)
    assert len(costs.variants) == 1000
    assert all(cost.train_time for cost in costs.variants.values())
