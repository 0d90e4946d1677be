from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.common.errors import UsageError
from ablations.common.settings import flatten
from ablations.config import TrainConfig
from ablations.config.compose import compose_config
from ablations.design import Design, make_design, protocol_differences
from tests.wording import refusal, worded


def design(*overrides: str) -> Design:
    return make_design(compose_config(["device=cpu", *overrides]))


def test_a_sweep_becomes_its_named_variants_and_its_levels() -> None:
    made = design()
    assert [variant.name for variant in made.variants] == ["none", "groups=1", "groups=2", "groups=4", "groups=8"]
    assert made.variants[0].attention == {"name": "none"}
    assert made.variants[3].attention == {
        "name": "sa", "stages": "all", "position": "residual", "groups": 4, "groups_policy": "strict",
        "branches": "both", "removed": "identity", "transform": "affine", "norm": "instance", "norm_affine": True,
        "pooling": "avg", "gate": "sigmoid", "gate_bias": 1.0, "shuffle": True, "shuffle_groups": 2,
        "permutation": "interleave",
    }  # fmt: skip
    assert made.variants[3].levels == {"attention.groups": 4}


def test_factors_are_crossed_and_named_by_their_levels() -> None:
    made = design(
        "sweep.factors={attention:{groups:[2,4],shuffle:[true,false]}}", "sweep.variants={}",
        'sweep.baseline="groups=2, shuffle=on"',
    )  # fmt: skip
    assert [variant.name for variant in made.variants] == [
        "groups=2, shuffle=on", "groups=2, shuffle=off", "groups=4, shuffle=on", "groups=4, shuffle=off",
    ]  # fmt: skip


def test_a_whole_module_or_backbone_can_be_a_level() -> None:
    made = design("sweep.factors={model:[resnet8,resnet20]}", "attention.groups=2")
    assert [(variant.name, variant.model["name"]) for variant in made.variants[1:]] == [
        ("resnet8", "resnet8"), ("resnet20", "resnet20"),
    ]  # fmt: skip


def test_a_level_can_be_the_baseline_of_all_that_are_otherwise_equal() -> None:
    made = design("sweep=backbones", "sweep.variants={extra: {attention: se}}")
    assert made.baselines == {
        "resnet20, none": "resnet20, none", "resnet20, sa": "resnet20, none",
        "resnet18, none": "resnet18, none", "resnet18, sa": "resnet18, none",
        "shufflenet_v2_x0_5, none": "shufflenet_v2_x0_5, none", "shufflenet_v2_x0_5, sa": "shufflenet_v2_x0_5, none",
    }  # fmt: skip
    assert made.baseline_factor == "attention"
    with pytest.raises(UsageError, match=refusal("sweep.baseline=se", "design.no_variant", valid="resnet20, none")):
        design("sweep=backbones", "sweep.baseline=se")


def test_the_knobs_of_the_base_hold_for_every_variant_that_has_them() -> None:
    made = design("attention.norm=layer")
    assert made.variants[0].attention == {"name": "none"}
    assert {variant.attention["norm"] for variant in made.variants[1:]} == {"layer"}


def test_cells_come_a_whole_replicate_after_the_other() -> None:
    cells = list(design("replicates=2").cells())
    assert [cell.replicate for cell in cells] == [0] * 5 + [1] * 5
    assert len({cell.key for cell in cells}) == 10


def test_baselines_have_more_replicates_than_others_where_they_are_asked_for() -> None:
    made = design("replicates=2", "baseline_replicates=4")
    assert made.sizes == {"none": 4, "groups=1": 2, "groups=2": 2, "groups=4": 2, "groups=8": 2}
    cells = list(made.cells())
    assert [(cell.variant.name, cell.replicate) for cell in cells[10:]] == [("none", 2), ("none", 3)]
    assert cells[:10] == list(design("replicates=2").cells())
    assert set(design("replicates=2", "baseline_replicates=2").sizes.values()) == {2}


def test_a_level_that_is_the_baseline_has_more_replicates_in_every_combination() -> None:
    made = design("sweep=backbones", "sweep.factors.model=[resnet8,resnet20]", "replicates=1", "baseline_replicates=2")
    assert {name for name, size in made.sizes.items() if size == 2} == {"resnet8, none", "resnet20, none"}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("replicates=auto",), "design.no_baselines_auto"),
        (("sweep=search",), "design.no_search"),
        (("replicates=4",), "design.uneven_baselines"),
        (("replicates=2",), "design.uneven_baselines"),
    ],
)
def test_more_replicates_of_baselines_are_refused_where_they_mean_nothing(
    overrides: tuple[str, ...], reason: str
) -> None:
    number = overrides[0].partition("=")[2]
    with pytest.raises(UsageError, match=refusal("baseline_replicates=3", reason, replicates=number)):
        design("baseline_replicates=3", *overrides)


def test_a_design_that_finds_out_its_replicates_has_a_limit_of_them() -> None:
    assert [(made.replicates, made.replicates_max) for made in (design(), design("replicates=4"))] == [(8, 0), (4, 0)]
    assert design("replicates=auto").replicates_max == 32
    made = design("replicates=auto", "replicates.max=12", "sweep.margin=0.5")
    assert (made.replicates_max, made.margin) == (12, 0.5)


@pytest.mark.parametrize(("data", "margin"), [("digits", 2.0), ("cifar10", 0.2), ("imagenette", 0.2)])
def test_the_margin_is_that_of_the_data_set_unless_one_is_given(data: str, margin: float) -> None:
    assert design(f"data={data}").margin == margin
    given = design(f"data={data}", "sweep.margin=2").margin
    assert (given, type(given)) == (2.0, float)


def test_another_metric_than_an_accuracy_needs_a_margin_in_its_unit() -> None:
    with pytest.raises(
        UsageError, match=refusal("sweep.margin=auto", "design.no_margin", metric="test_loss", unit="nats")
    ):
        design("judge.metric=test_loss")
    made = design("judge.metric=test_loss", "sweep.margin=0.05")
    assert (made.metric, made.margin) == ("test_loss", 0.05)


def test_a_search_is_judged_by_the_metric_that_is_asked_for() -> None:
    assert design("sweep=search", "judge.metric=ece", "sweep.margin=1").metric == "ece"


def test_a_replicate_has_one_seed_for_all_variants() -> None:
    seeds = {(cell.replicate, cell.seed) for cell in design("replicates=3").cells()}
    assert len(seeds) == 3
    assert len({seed for _, seed in seeds}) == 3


@pytest.mark.parametrize(
    "override",
    ["train.epochs=7", "data.clutter=2", "seed=1", "train.precision=fp32", "data.flip=true"],
)
def test_whatever_decides_a_result_changes_the_key_of_a_cell(override: str) -> None:
    base = {cell.key for cell in design("train.precision=bf16").cells()}
    assert base.isdisjoint(cell.key for cell in design("train.precision=bf16", override).cells())


def test_a_knob_changes_the_keys_of_the_variants_that_have_it_and_no_others() -> None:
    base = {cell.variant.name: cell.key for cell in design("replicates=1").cells()}
    other = {cell.variant.name: cell.key for cell in design("replicates=1", "attention.norm=layer").cells()}
    assert [name for name in base if base[name] == other[name]] == ["none"]


@pytest.mark.parametrize(
    "override",
    [
        "replicates=2",
        "replicates=auto",
        "sweep.margin=1",
        "judge.metric=top1",
        "results_dir=other",
        "study=other",
        "sweep.question=Why?",
    ],
)
def test_what_decides_no_result_leaves_the_keys_alone(override: str) -> None:
    base = {cell.key for cell in design("replicates=8").cells()}
    assert base.issuperset(cell.key for cell in design(override).cells())


def test_the_protocol_says_what_auto_became() -> None:
    protocol = design().protocol
    assert protocol["train"]["precision"] in ("fp32", "bf16")
    assert protocol["train"]["fused"] in ("on", "off")
    assert (protocol["train"]["memory_format"], protocol["device"]) == ("contiguous", "cpu")


def test_a_stored_study_is_read_under_the_protocol_of_the_machine_that_made_it() -> None:
    stored = design("train.precision=bf16", "train.memory_format=channels_last").protocol | {"device": "cuda"}
    assert make_design(compose_config([]), stored=stored).protocol == stored
    asked = make_design(compose_config(["train.precision=fp32"]), stored=stored).protocol
    assert protocol_differences(stored, asked) == [
        worded("study.difference", option="train.precision", stored="bf16", asked="fp32")
    ]


def test_a_neutral_option_is_part_of_the_protocol_only_where_it_is_set() -> None:
    usual, decaying = design(), design("train.decay=all")
    assert "decay" not in usual.protocol["train"]
    assert design("train.decay=weights").protocol == usual.protocol
    assert decaying.protocol["train"] == usual.protocol["train"] | {"decay": "all"}
    assert not {cell.key for cell in usual.cells()} & {cell.key for cell in decaying.cells()}
    assert TrainConfig(**usual.protocol["train"]).decay == "weights"
    assert protocol_differences(usual.protocol, decaying.protocol) == [
        worded("study.difference", option="train.decay", stored="weights", asked="all")
    ]
    assert protocol_differences(decaying.protocol, usual.protocol) == [
        worded("study.difference", option="train.decay", stored="all", asked="weights")
    ]


def test_an_option_that_is_off_is_named_so_where_protocols_differ() -> None:
    stored, asked = design().protocol, design("train.mixup=0.2", "data.randaugment=2").protocol
    assert protocol_differences(stored, asked) == [
        worded("study.difference", option="data.randaugment", stored="off", asked="2"),
        worded("study.difference", option="train.mixup", stored="off", asked="0.2"),
    ]


@pytest.mark.parametrize(
    "setting",
    [
        "train.optimizer=sgd", "train.decay=weights", "train.mixup=0", "train.cutmix=0", "train.ema=0",
        "data.randaugment=0", "data.randaugment_magnitude=9",
    ],
)  # fmt: skip
def test_an_option_at_its_neutral_default_leaves_the_keys_of_cells_alone(setting: str) -> None:
    assert {cell.key for cell in design(setting).cells()} == {cell.key for cell in design().cells()}


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.text("abc", min_size=1), inner), max_leaves=8))
def test_flattening_keeps_every_leaf(settings: object) -> None:
    if not isinstance(settings, dict):
        return

    def leaves(node: object) -> int:
        return sum(map(leaves, node.values())) if isinstance(node, dict) else 1

    assert len(flatten(settings)) == leaves(settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["sweep.factors.attention.groups=[8,16]"],
            refusal(
                "sweep.factors.attention.groups=16: at layer1.0.sa of resnet8: groups=16",
                "knobs.not_split",
                channels=16,
                then=("valid at all insertion points: 1, 2, 4, 8", "groups_policy=clamp"),
            ),
        ),
        (["sweep.factors.attention.groups=[4,4]"], refusal("sweep", "design.listed_twice", name="groups=4")),
        (["sweep.variants.four={attention:{groups:4}}"], refusal("sweep: groups=4", "design.same", other="four")),
        (
            ["sweep.factors={attention: {groups: [1, 2]}, attention.groups: [4]}"],
            refusal("sweep.factors.attention.groups=[4]", "design.given_twice", other="[1,2]"),
        ),
        (
            ["sweep.factors={model: [resnet8], model.name: [resnet20]}"],
            refusal("sweep.factors.model.name=[resnet20]", "design.given_twice", other="[resnet8]"),
        ),
        (
            ["sweep.max_parameters=9"],
            refusal("sweep.max_parameters=9", "design.search_alone"),
        ),
        (["sweep.trials=9"], refusal("sweep.trials=9", "design.search_alone")),
        (["sweep.factors.attention.groups=[]"], refusal("sweep.factors.attention.groups=[]", "design.levels")),
        (["sweep.factors.attention.groups=4"], refusal("sweep.factors.attention.groups=4", "design.levels")),
        (["sweep.factors.attention.groups=[four]"], refusal("groups=four", "options.word_or_integer", word="auto")),
        (
            ["sweep.factors.attention.group=[4]"],
            refusal("sweep.factors.attention.group=4", "knobs.has_no", attention="sa", knob="group", near="groups"),
        ),
        (
            ["attention=none"],
            refusal("sweep.factors.attention.groups=1", "knobs.has_no", attention="none", knob="groups"),
        ),
        (
            ["sweep.factors.attention.norm=[group:3]", "attention.groups=2"],
            refusal("norm=group:3", "knobs.branch", channels=8),
        ),
        (["sweep.factors.train.epochs=[1,2]"], refusal("train.epochs", "design.protocol")),
        (
            ["sweep.variants.x={attention:sea}"],
            refusal("sweep.variants.x", "design.no_attention", name="sea", near="se or sa"),
        ),
        (
            ["sweep.variants.x={model:resnet21}"],
            refusal("sweep.variants.x: model=resnet21", "backbones.unknown", then="resnet20"),
        ),
        (["sweep.variants.x={model:{depth:3}}"], refusal("sweep.variants.x", "design.depth", setting="depth")),
        (["sweep.variants.x=3"], refusal("sweep.variants.x=3", "options.as_settings")),
        (["sweep.variants.x={attention:[sa]}"], refusal("attention=[sa]", "design.one_value")),
        (["sweep.factors={model:[[resnet8]]}"], refusal("model=[resnet8]", "design.one_value")),
        (
            ["attention.norm=Instance"],
            refusal("attention.norm=Instance", "options.unknown", near="instance"),
        ),
        (["sweep.baseline=nothing"], refusal("sweep.baseline=nothing", "design.no_variant")),
        (["~sweep.variants.none"], refusal("sweep.baseline=none", "design.no_variant")),
        (["sweep.factors={}", "sweep.variants={}"], refusal("sweep.factors", "paths.needs")),
        (["replicates.max=8"], refusal("replicates.max=8", "design.no_auto")),
        (
            ["sweep=search", "replicates=auto"],
            refusal("replicates=auto", "design.compared"),
        ),
        (["data.cutout=20"], refusal("data.cutout=20", "design.cutout", side=20)),
        (
            ["data.randaugment_magnitude=5"],
            refusal("data.randaugment_magnitude=5", "design.idle_without", other="data.randaugment"),
        ),
        (
            ["train.optimizer=adamw", "train.momentum=0.8"],
            refusal("train.momentum=0.8", "design.idle", other="train.optimizer=adamw"),
        ),
        (["train.schedule=cosine", "train.warmup=0.1"], refusal("train.warmup=0.1", "design.warms_up")),
        (["train.mixup=-1"], refusal("train.mixup=-1.0", "options.below", least="0.0")),
        (["train.cutmix=-0.5"], refusal("train.cutmix=-0.5", "options.below", least="0.0")),
        (["train.ema=1"], refusal("train.ema=1.0", "options.over", most="0.999999")),
        (["train.optimizer=adam"], refusal("train.optimizer=adam", "options.unknown", near="adamw")),
        (["train.decay=gates"], refusal("train.decay=gates", "options.unknown", valid="weights, all")),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        design(*overrides)


def test_a_variant_has_a_name() -> None:
    config = compose_config(["device=cpu"])
    config.sweep.variants[" "] = {"attention": "none"}
    with pytest.raises(UsageError, match=refusal("sweep.variants", "design.no_name")):
        make_design(config)


def test_the_identity_of_a_cell_is_plain_json() -> None:
    made = design()
    assert json.loads(json.dumps(made.protocol)) == made.protocol


def test_where_this_machine_has_the_data_is_no_part_of_the_protocol() -> None:
    made = design("data=imagenet_subset", "data.root=/somewhere", "data.cache=/tmp", "data.memory=mapped")
    assert made.protocol == design("data=imagenet_subset", "data.skip_corrupt=true").protocol
    assert not {"root", "cache", "memory", "skip_corrupt"} & made.protocol["data"].keys()
    assert made.protocol["data"]["resolution"] == 64


@pytest.mark.parametrize(("resolution", "stem"), [(64, "cifar"), (65, "imagenet")])
def test_small_images_of_any_data_set_get_the_stem_for_small_images(resolution: int, stem: str) -> None:
    made = design("data=imagenet_subset", f"data.resolution={resolution}", "model=resnet18")
    assert {variant.model["stem"] for variant in made.variants} == {stem}


def test_cuda_without_a_cuda_device_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(UsageError, match=refusal("device=cuda", "machine.no_cuda", valid="auto")):
        make_design(compose_config(["device=cuda"]))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [(("data.validation=0.2",), "data.no_search"), (("data.seed=replicate", "data=cifar10"), "data.nothing_to_draw")],
)
def test_options_of_the_data_that_mean_nothing_are_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=refusal(overrides[0], reason)):
        design(*overrides)
