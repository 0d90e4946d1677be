from __future__ import annotations

import pytest

from ablations.config.compose import compose_config
from ablations.config.groups import sweep_questions
from ablations.design import Design, make_design
from ablations.measure import degenerate
from ablations.measure.degenerate import DegeneracyProbe
from sa_core.attentions.findings import CONSTANT_GATE, INPUT_INDEPENDENT, SINGLE_HIDDEN_UNIT, Finding

SIXTEEN = "sweep.variants.{name}16={{attention: {name}, attention.reduction: 16}}"
# Sweeps whose default number of groups, or 8 groups, are impossible for this backbone.
UNFIT = {("shufflenet_v2_x0_5", "groups"), ("shufflenet_v2_x0_5", "search")}


def design(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", *overrides]))


@pytest.mark.parametrize("model", ["resnet8", "resnet20", "resnet18", "shufflenet_v2_x0_5"])
@pytest.mark.parametrize("sweep", sorted(sweep_questions()))
@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_no_sweep_of_the_suite_has_a_degenerate_module(model: str, sweep: str, data: str) -> None:
    if (model, sweep) in UNFIT or (sweep == "backbones" and model != "resnet8"):
        return
    # A search trains only some of the combinations; all are checked here.
    every = ["sweep.sampler=grid", "sweep.objectives=[top1]"] if sweep == "search" else []
    chosen = [] if sweep == "backbones" else [f"model={model}"]
    config = compose_config(["device=cpu", f"sweep={sweep}", f"data={data}", *every, *chosen])
    assert DegeneracyProbe(config.data.side).find(make_design(config).variants) == []


def test_a_reduction_of_16_is_found_in_the_first_stage_of_a_narrow_backbone() -> None:
    made = design("sweep=rivals", *(SIXTEEN.format(name=name) for name in ("se", "cbam", "gc")))
    cbam, gc = DegeneracyProbe(32).find(made.variants)
    assert (cbam.variant, gc.variant) == ("cbam16", "gc16")
    assert cbam.findings == (Finding(SINGLE_HIDDEN_UNIT, "channel.fc1"),)
    assert Finding(INPUT_INDEPENDENT) in gc.findings
    for module in (cbam, gc):
        assert [(place.path, place.stage) for place in module.places] == [("layer1.0.sa", 1)]
        assert module.shape == (16, 32, 32)


def test_insertion_points_with_one_shape_give_one_degenerate_module() -> None:
    made = design("model=resnet20", "sweep.factors={attention: [gc]}", "attention=gc", "attention.reduction=16")
    (module,) = DegeneracyProbe(32).find(made.variants)
    assert [place.path for place in module.places] == ["layer1.0.sa", "layer1.1.sa", "layer1.2.sa"]


def test_modules_are_probed_with_the_shape_of_maps_in_the_network() -> None:
    stems = {stem: design("sweep=rivals", "model=resnet18", f"model.stem={stem}") for stem in ("cifar", "imagenet")}
    assert DegeneracyProbe(32).find(stems["cifar"].variants) == []
    found = DegeneracyProbe(32).find(stems["imagenet"].variants)
    assert [module.variant for module in found] == ["sa", "gc", "sge"]
    assert {module.shape for module in found} == {(512, 1, 1)}
    assert {place.stage for module in found for place in module.places} == {4}


def test_only_insertion_points_with_attention_are_probed() -> None:
    made = design("model=resnet18", "model.stem=imagenet", "sweep.factors={attention.stages: [1+2+3, last]}")
    assert {module.variant for module in DegeneracyProbe(32).find(made.variants)} == {"stages=last"}


def test_controls_are_reported_only_if_they_are_not_intended() -> None:
    removed = ["sweep=branches", "model=resnet18", "model.stem=imagenet"]
    found = {module.variant: module.findings for module in DegeneracyProbe(32).find(design(*removed).variants)}
    assert set(found) == {"branches=both", "branches=spatial", "all_by_space"}
    assert Finding(CONSTANT_GATE) in found["branches=both"]


def test_each_distinct_module_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    probed: list[tuple[int, int, int]] = []

    def find(module: object, shape: tuple[int, int, int]) -> list[Finding]:
        del module
        probed.append(shape)
        return []

    monkeypatch.setattr(degenerate, "find_degenerate", find)
    probe = DegeneracyProbe(32)
    for _ in range(2):
        probe.find(design("sweep=placement", "model=resnet20").variants)
    # Four positions and several stages have three different widths in total.
    assert sorted(shape[0] for shape in probed) == [16, 32, 64]


def test_images_that_a_backbone_rejects_are_skipped() -> None:
    made = design("model=timm/resnet26", "sweep.factors={attention: [sa]}")
    assert DegeneracyProbe(0).find(made.variants) == []
