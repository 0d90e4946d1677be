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


def verdicts(study_design: Design, margin: float = 0.05, **times: list[float]) -> dict[str, CostVerdict]:
    costs = costs_of(study_design, train_time_ratio=times)
    return {contrast.variant: contrast.verdict for contrast in costs.judge("train", margin)}


def test_a_study_without_measurements_has_no_costs() -> None:
    assert collect_costs({}, design()) is None
    renamed = tuple(replace(variant, name=f"{variant.name}'") for variant in design().variants[1:])
    assert collect_costs(usual_attributes(design()), replace(design(), variants=renamed)) is None


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


def test_costs_are_those_of_the_latest_machine() -> None:
    study_design = design()
    here = machine_of(study_design, usual_costs(study_design))
    there = machine_of(study_design, {"groups=4": NetworkCost(1, 99.0)}, HERE | {"cpu": "other"})
    costs = collect_costs(stored_attributes(here, there), study_design)
    assert costs is not None
    assert costs.metrics == {"groups=4": {"peak_memory_mib": 99.0}}
    assert costs.machine.environment["cpu"] == "other"


def test_a_failed_variant_has_a_reason_and_no_costs() -> None:
    study_design = design()
    costs = collect_costs(
        stored_attributes(machine_of(study_design, {"groups=2": NetworkCost(failed="too large")})), study_design
    )
    assert costs is not None
    cost = costs.of("groups=2")
    assert (cost.failed, cost.metrics, cost.train_time) == ("too large", {}, None)
    assert math.isnan(cost.peak_memory_mib)


def test_verdicts_are_slower_faster_same_or_undecided() -> None:
    study_design = make_design(compose_config(["device=cpu", "sweep.factors.attention.groups=[1,2,4,8]"]))
    wide = [0.8, 1.3, 0.9, 1.25, 0.85, 1.2, 0.9, 1.1]
    judged = verdicts(
        study_design,
        none=ratios(1.0),
        **{"groups=1": ratios(1.3), "groups=2": ratios(0.7), "groups=4": ratios(1.02), "groups=8": wide},
    )
    assert judged == {
        "groups=1": CostVerdict.SLOWER,
        "groups=2": CostVerdict.FASTER,
        "groups=4": CostVerdict.SAME,
        "groups=8": CostVerdict.UNDECIDED,
    }


def test_ratios_are_to_the_plain_network_and_not_to_its_second_copy() -> None:
    # The ratios of the plain network are those of its second copy (A/A): noise, which must not enter a contrast.
    judged = verdicts(design(), none=ratios(1.2), **{"groups=2": ratios(1.2), "groups=4": ratios(1.0)})
    assert judged == {"groups=2": CostVerdict.SLOWER, "groups=4": CostVerdict.SAME}


def test_a_single_copy_has_no_verdict() -> None:
    judged = verdicts(design(), none=[1.0], **{"groups=2": [1.2], "groups=4": [1.0]})
    assert set(judged.values()) == {CostVerdict.NONE}


def test_each_backbone_is_compared_with_its_own_plain_network() -> None:
    study_design = backbones()
    costs = costs_on(machine_of(study_design, usual_costs(study_design)), study_design)
    assert len(costs.machine.runs) == 2
    contrasts = {contrast.variant: contrast for contrast in costs.judge("train", 0.05)}
    assert set(contrasts) == {"resnet8, sa", "resnet20, sa"}
    assert contrasts["resnet8, sa"].baseline == "resnet8, none"
    assert contrasts["resnet20, sa"].ratio == pytest.approx(1.3)  # not divided by the ratio of the second copy


def test_copies_of_different_runs_are_never_paired() -> None:
    study_design = make_design(compose_config(["device=cpu", "sweep=shuffle"]))
    baseline, other = study_design.baseline, "shuffle=off"
    assert study_design.baselines[other] == baseline != "none"
    networks = {variant.name: variant.network for variant in study_design.variants}
    networks[PLAIN] = networks["none"]

    def run(**times: float) -> CostRun:
        costs = {name: NetworkCost(1, 1.0, speed(ratios(time))) for name, time in times.items()}
        return CostRun({name: networks[name] for name in times}, costs)

    apart = MachineCosts(HERE, TAKEN, (run(**{PLAIN: 1.0, baseline: 1.2}), run(**{PLAIN: 1.0, other: 1.3})))
    together = MachineCosts(HERE, TAKEN, (*apart.runs, run(**{PLAIN: 1.0, baseline: 1.2, other: 1.3})))
    for machine, copies in ((apart, 0), (together, 8)):
        contrasts = {contrast.variant: contrast for contrast in costs_on(machine, study_design).judge("train", 0.05)}
        assert contrasts[other].n == copies
    assert contrasts[other].ratio == pytest.approx(1.3 / 1.2)


def test_a_changed_network_does_not_have_the_costs_of_its_name() -> None:
    study_design = design()
    changed = tuple(
        replace(variant, attention={**variant.attention, "norm": "layer"}) if variant.name == "groups=4" else variant
        for variant in study_design.variants
    )
    costs = collect_costs(usual_attributes(study_design), replace(study_design, variants=changed))
    assert costs is not None
    assert set(costs.variants) == {"none", "groups=2"}
    assert [contrast.variant for contrast in costs.judge("train", 0.05)] == ["groups=2"]


def test_contrasts_of_times_are_judged_once_for_each_mode(tmp_path: Path) -> None:
    analysis = study_analysis(tmp_path)
    contrasts = analysis.cost_contrasts
    assert contrasts is analysis.cost_contrasts
    names = ["groups=2", "groups=4"]
    assert {mode: list(of_mode) for mode, of_mode in contrasts.items()} == {"train": names, "test": names}
    assert contrasts["train"]["groups=4"].verdict is CostVerdict.SLOWER
    unmeasured = replace(analysis, attributes={**analysis.attributes, "costs": []})
    assert unmeasured.costs is None
    assert unmeasured.cost_contrasts == {"train": {}, "test": {}}


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


def test_the_costs_of_a_thousand_variants_are_collected() -> None:
    study_design = design()
    sa = study_design.variants[1]
    many = replace(study_design, variants=tuple(replace(sa, name=f"v{number}") for number in range(1000)))
    cost = usual_costs(study_design)["groups=2"]
    runs = tuple(
        CostRun(*({f"v{number}": each for number in range(first, first + 8)} for each in (sa.network, cost)))
        for first in range(0, 1000, 8)
    )
    costs = costs_on(MachineCosts(HERE, TAKEN, runs), many)
    assert len(costs.variants) == 1000
    assert all(cost.train_time for cost in costs.variants.values())
