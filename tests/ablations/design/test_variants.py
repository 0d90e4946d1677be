from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from ablations.common.errors import UsageError
from ablations.common.settings import Settings
from ablations.config.compose import compose_config
from ablations.config.groups import sweep_questions
from ablations.design import Design, make_design
from ablations.training.learner import build_network
from tests.wording import refusal, worded


def design(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", *overrides]))


def attention(study_design: Design, variant: str) -> Settings:
    return next(each.attention for each in study_design.variants if each.name == variant)


def only(*overrides: str) -> Settings:
    """The attention of a sweep of one variant, study_design of the base network."""
    study_design = design("sweep.factors={}", "sweep.variants={one:{}}", "sweep.baseline=one", *overrides)
    return study_design.variants[0].attention


@pytest.mark.parametrize("sweep", sorted(sweep_questions()))
def test_every_variant_of_every_sweep_can_be_built(sweep: str) -> None:
    study_design = design(f"sweep={sweep}")
    assert study_design.variants
    for variant in study_design.variants:
        with torch.device("meta"):
            build_network(variant.network, 10, seed=0)


def test_variants_are_checked_without_importing_torch() -> None:
    code = (
        "import sys; from ablations.config.compose import compose_config; "
        "from ablations.config.groups import sweep_questions; from ablations.design import make_design; "
        "[make_design(compose_config(['device=cpu', f'sweep={sweep}'])) for sweep in sweep_questions()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_base_knobs_without_an_effect_in_a_variant_are_not_inherited() -> None:
    study_design = design("sweep=branches", "attention.norm=batch", "attention.pooling=max")
    norms = {branch: attention(study_design, f"branches={branch}")["norm"] for branch in ("both", "channel", "none")}
    assert norms == {"both": "batch", "channel": "instance", "none": "instance"}
    assert attention(study_design, "branches=spatial")["norm"] == "batch"
    assert [attention(study_design, f"branches={branch}")["pooling"] for branch in ("both", "channel", "spatial")] == [
        "max", "max", "avg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["attention.branches=none", "attention.shuffle=false", "attention.norm=batch"],
            refusal("attention.norm=batch", "knobs.idle", then="branches=none"),
        ),
        (
            ["attention.shuffle=false", "attention.permutation=random"],
            refusal("attention.permutation=random", "knobs.idle", then="does not permute"),
        ),
        (
            ["attention.transform=none", "attention.gate_bias=0"],
            refusal("attention.gate_bias=0.0", "knobs.idle", then="no bias"),
        ),
        (
            ["sweep=norm", "attention.branches=channel"],
            refusal("sweep.factors.attention.norm=layer: norm=layer", "knobs.idle", then="branches=channel"),
        ),
        (
            ["sweep.factors.attention={branches: [both, channel], norm: [instance, batch]}"],
            refusal(
                "sweep.factors.attention.groups=1; sweep.factors.attention.branches=channel; "
                "sweep.factors.attention.norm=batch: norm=batch",
                "knobs.idle",
            ),
        ),
        (
            ["sweep.variants.x={attention.removed: reassign}"],
            refusal("sweep.variants.x: removed=reassign", "knobs.idle"),
        ),
        (
            ["sweep.variants.x={attention: se, attention.groups: 3}"],
            refusal("sweep.variants.x", "knobs.has_no", attention="se", knob="groups", then="reduction"),
        ),
        (
            ["sweep.variants.x={attention: none, attention.stages: last}"],
            refusal("sweep.variants.x", "knobs.has_no", attention="none", knob="stages"),
        ),
        (
            ["sweep.variants.x={attention.gate: relu}"],
            refusal("sweep.variants.x: gate=relu", "options.unknown", valid="sigmoid, hard_sigmoid"),
        ),
        (
            ["sweep.variants.x={attention.position: inside}"],
            refusal("sweep.variants.x: position=inside", "options.unknown", valid="residual, pre"),
        ),
        (
            ["sweep.variants.x={attention.stages: 2+4}"],
            refusal("sweep.variants.x: stages=2+4", "backbones.no_stages", model="resnet8", last=3),
        ),
        (
            ["sweep.variants.x={model: {stem: cifar}}"],
            refusal("sweep.variants.x: stem=cifar", "backbones.own_stem", model="resnet8"),
        ),
        (["sweep=norm", "attention.norm=batch"], refusal("attention.norm=batch", "design.factor")),
        (
            ["attention.groups=64"],
            refusal("attention.groups=64", "design.factor"),
        ),
        (["sweep=backbones", "model=resnet56"], refusal("model=resnet56", "design.factor")),
        (
            ["attention=gc", "sweep.factors={attention.reduction: [full]}"],
            refusal("sweep.factors.attention.reduction=full: reduction=full", "options.word_or_integer", word="auto"),
        ),
        (
            ["attention=gc", "attention.reduction=none"],
            refusal("attention.reduction=none", "options.word_or_integer", word="auto"),
        ),
        (
            ["attention=gc", "sweep.factors={attention.reduction: [0]}"],
            refusal("sweep.factors.attention.reduction=0: reduction=0", "options.below", least=1),
        ),
        (["attention.norm=qqq"], refusal("attention.norm=qqq", "options.unknown", valid="instance")),
        (["attention.norm=group:1"], refusal("attention.norm=group:1", "design.layer")),
        (
            ["sweep=transform", "attention.branches=spatial"],
            refusal(
                "sweep.factors.attention.transform=affine_channel: transform=affine_channel",
                "knobs.idle",
                then="equivalent to none",
            ),
        ),
        (
            ["sweep.factors={atention.groups: [1]}"],
            refusal("sweep.factors.atention.groups", "design.nothing", name="atention.groups", near="attention.groups"),
        ),
        (["sweep.variants.x={train.epochs: 3}"], refusal("sweep.variants.x: train.epochs", "design.protocol")),
        (["model.stem=imagenet"], refusal("model.stem=imagenet", "backbones.own_stem", model="resnet8")),
        (
            ["sweep.variants.x={model: resnet18, model.stem: small}"],
            refusal("sweep.variants.x: stem=small", "options.unknown", valid="auto, imag"),
        ),
        (["model=timm/convnext_tiny"], refusal("model=timm/convnext_tiny", "backbones.no_place")),
        (["model=timm/resnet5"], refusal("model=timm/resnet5", "backbones.no_model", near="timm/resnet50")),
        (
            ["model=timm/resnet26", "attention.position=pre"],
            refusal("attention.position=pre", "backbones.not_in", model="timm/resnet26", valid="residual"),
        ),
    ],
)
def test_contradictory_and_unknown_settings_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        design(*overrides)


def test_other_modules_inherit_insertion_points_but_no_knobs() -> None:
    study_design = design("sweep=rivals", "attention.stages=last", "attention.position=post", "attention.groups=2")
    assert attention(study_design, "se") == {"name": "se", "stages": "3", "position": "post", "reduction": 1}
    assert attention(study_design, "sge")["groups"] == 4
    assert attention(study_design, "sa")["groups"] == 2
    assert attention(study_design, "none") == {"name": "none"}


def test_controls_derived_from_shuffle_attention_inherit_its_knobs() -> None:
    study_design = design("sweep=controls", "attention.groups=2", "attention.norm=layer")
    assert (attention(study_design, "frozen")["groups"], attention(study_design, "frozen")["norm"]) == (2, "layer")
    assert attention(study_design, "se_matched")["groups"] == 2


@pytest.mark.parametrize(
    ("model", "module", "groups"),
    [
        ("resnet8", "sa", 4),
        ("resnet18", "sa", 16),
        ("resnet50", "sa", 64),
        ("resnet101", "sge", 64),
        ("shufflenet_v2_x0_5", "sa", 6),
        ("shufflenet_v2_x1_0", "sa", 1),
        ("timm/resnet26", "sa", 64),
    ],
)
def test_auto_groups_are_proportional_to_the_width_of_the_backbone(model: str, module: str, groups: int) -> None:
    assert only(f"model={model}", f"attention={module}")["groups"] == groups


@pytest.mark.parametrize("module", ["se", "cbam", "gc"])
@pytest.mark.parametrize(
    ("model", "reduction"),
    [
        ("resnet8", 1),
        ("resnet18", 4),
        ("resnet50", 16),
        ("shufflenet_v2_x0_5", 1),
        ("shufflenet_v2_x1_0", 3),
        ("timm/resnet26", 16),
    ],
)
def test_auto_reduction_is_proportional_to_the_width_of_the_backbone(model: str, module: str, reduction: int) -> None:
    assert only(f"model={model}", f"attention={module}")["reduction"] == reduction


@pytest.mark.parametrize("where", [{}, {"position": "pre"}, {"position": "post"}, {"stages": "last"}])
def test_auto_reduction_does_not_depend_on_the_insertion_points(where: dict[str, str]) -> None:
    overrides = [f"attention.{option}={value}" for option, value in where.items()]
    assert only("model=resnet18", "attention=gc", *overrides)["reduction"] == 4


def test_reduction_can_be_a_factor() -> None:
    study_design = design("attention=se", "sweep.factors={attention.reduction: [auto, 4, '16']}", "sweep.baseline=none")
    assert {variant.name: variant.attention.get("reduction") for variant in study_design.variants} == {
        "none": None, "reduction=auto": 1, "reduction=4": 4, "reduction=16": 16,
    }  # fmt: skip


def test_auto_and_its_resolved_value_are_the_same_network() -> None:
    with pytest.raises(UsageError, match=worded("design.same", other="reduction=auto")):
        design("model=resnet50", "attention=se", "sweep.factors={attention.reduction: [auto, 16]}")


@pytest.mark.parametrize("sweep", sorted(sweep_questions()))
def test_auto_is_resolved_in_every_network(sweep: str) -> None:
    for variant in design(f"sweep={sweep}").variants:
        assert "auto" not in {*variant.attention.values(), *variant.model.values()}


def test_auto_groups_do_not_depend_on_the_insertion_points() -> None:
    study_design = design("sweep=placement", "model=resnet50")
    assert {variant.attention["groups"] for variant in study_design.variants if variant.name != "none"} == {64}
    clamped = {variant.name: variant.clamped for variant in study_design.variants if variant.clamped}
    assert clamped == {"position=pre": {"64": 32}}


def test_clamped_groups_are_listed_by_width() -> None:
    clamp = ["sweep.factors.attention.groups=[8,64]", "attention.groups_policy=clamp"]
    _, eight, sixty_four = design(*clamp).variants
    assert eight.clamped == {}
    assert sixty_four.clamped == {"16": 8, "32": 16, "64": 32}
    assert sixty_four.attention["groups"] == 64


@pytest.mark.parametrize(
    ("stages", "canonical"),
    [("all", "all"), ("1+2+3", "all"), ("3+1", "1+3"), ("last", "3"), ("first", "1"), ("2", "2")],
)
def test_stages_have_a_canonical_form(stages: str, canonical: str) -> None:
    assert only(f"attention.stages={stages}")["stages"] == canonical


def test_small_images_have_the_cifar_stem_if_the_backbone_has_stems() -> None:
    study_design = design("sweep=backbones")
    assert {variant.model["name"]: variant.model.get("stem") for variant in study_design.variants} == {
        "resnet20": None, "resnet18": "cifar", "shufflenet_v2_x0_5": "cifar",
    }  # fmt: skip


def test_a_configured_stem_applies_to_the_backbones_that_have_it() -> None:
    study_design = design(
        "sweep=backbones", "model=resnet18", "model.stem=imagenet", "sweep.variants.x={attention: se}"
    )
    assert {variant.model.get("stem") for variant in study_design.variants} == {None, "imagenet"}
