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


def test_a_sweep_has_its_named_variants_and_its_levels() -> None:
    study_design = design()
    assert [variant.name for variant in study_design.variants] == [
        "none",
        "groups=1",
        "groups=2",
        "groups=4",
        "groups=8",
    ]
    assert study_design.variants[0].attention == {"name": "none"}
    assert study_design.variants[3].attention == {
        "name": "sa", "stages": "all", "position": "residual", "groups": 4, "groups_policy": "strict",
        "branches": "both", "removed": "identity", "transform": "affine", "norm": "instance", "norm_affine": True,
        "pooling": "avg", "gate": "sigmoid", "gate_bias": 1.0, "shuffle": True, "shuffle_groups": 2,
        "permutation": "interleave",
    }  # fmt: skip
    assert study_design.variants[3].levels == {"attention.groups": 4}


def test_crossed_variants_are_named_by_their_levels() -> None:
    study_design = design(
        "sweep.factors={attention:{groups:[2,4],shuffle:[true,false]}}", "sweep.variants={}",
        'sweep.baseline="groups=2, shuffle=on"',
    )  # fmt: skip
    assert [variant.name for variant in study_design.variants] == [
        "groups=2, shuffle=on", "groups=2, shuffle=off", "groups=4, shuffle=on", "groups=4, shuffle=off",
    ]  # fmt: skip


def test_a_whole_module_or_backbone_can_be_a_level() -> None:
    study_design = design("sweep.factors={model:[resnet8,resnet20]}", "attention.groups=2")
    assert [(variant.name, variant.model["name"]) for variant in study_design.variants[1:]] == [
        ("resnet8", "resnet8"), ("resnet20", "resnet20"),
    ]  # fmt: skip


def test_the_baseline_can_be_a_level() -> None:
    study_design = design("sweep=backbones", "sweep.variants={extra: {attention: se}}")
    assert study_design.baselines == {
        "resnet20, none": "resnet20, none", "resnet20, sa": "resnet20, none",
        "resnet18, none": "resnet18, none", "resnet18, sa": "resnet18, none",
        "shufflenet_v2_x0_5, none": "shufflenet_v2_x0_5, none", "shufflenet_v2_x0_5, sa": "shufflenet_v2_x0_5, none",
    }  # fmt: skip
    assert study_design.baseline_factor == "attention"
    with pytest.raises(UsageError, match=refusal("sweep.baseline=se", "design.no_variant", valid="resnet20, none")):
        design("sweep=backbones", "sweep.baseline=se")


def test_variants_inherit_the_knobs_of_the_base_network() -> None:
    study_design = design("attention.norm=layer")
    assert study_design.variants[0].attention == {"name": "none"}
    assert {variant.attention["norm"] for variant in study_design.variants[1:]} == {"layer"}


def test_cells_are_ordered_by_replicate() -> None:
    cells = list(design("replicates=2").cells())
    assert [cell.replicate for cell in cells] == [0] * 5 + [1] * 5
    assert len({cell.key for cell in cells}) == 10


def test_baselines_can_have_more_replicates_than_others() -> None:
    study_design = design("replicates=2", "baseline_replicates=4")
    assert study_design.sizes == {"none": 4, "groups=1": 2, "groups=2": 2, "groups=4": 2, "groups=8": 2}
    cells = list(study_design.cells())
    assert [(cell.variant.name, cell.replicate) for cell in cells[10:]] == [("none", 2), ("none", 3)]
    assert cells[:10] == list(design("replicates=2").cells())
    assert set(design("replicates=2", "baseline_replicates=2").sizes.values()) == {2}


def test_a_baseline_level_has_more_replicates_in_every_combination() -> None:
    study_design = design(
        "sweep=backbones", "sweep.factors.model=[resnet8,resnet20]", "replicates=1", "baseline_replicates=2"
    )
    assert {name for name, size in study_design.sizes.items() if size == 2} == {"resnet8, none", "resnet20, none"}


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("replicates=auto",), "design.no_baselines_auto"),
        (("sweep=search",), "design.no_search"),
        (("replicates=4",), "design.uneven_baselines"),
        (("replicates=2",), "design.uneven_baselines"),
    ],
)
def test_invalid_numbers_of_baseline_replicates_are_refused(overrides: tuple[str, ...], reason: str) -> None:
    number = overrides[0].partition("=")[2]
    with pytest.raises(UsageError, match=refusal("baseline_replicates=3", reason, replicates=number)):
        design("baseline_replicates=3", *overrides)


def test_a_design_with_replicates_auto_has_a_maximum() -> None:
    assert [
        (study_design.replicates, study_design.replicates_max) for study_design in (design(), design("replicates=4"))
    ] == [(8, 0), (4, 0)]
    assert design("replicates=auto").replicates_max == 32
    study_design = design("replicates=auto", "replicates.max=12", "sweep.margin=0.5")
    assert (study_design.replicates_max, study_design.margin) == (12, 0.5)


@pytest.mark.parametrize(("data", "margin"), [("digits", 2.0), ("cifar10", 0.2), ("imagenette", 0.2)])
def test_the_margin_is_that_of_the_data_set_by_default(data: str, margin: float) -> None:
    assert design(f"data={data}").margin == margin
    given = design(f"data={data}", "sweep.margin=2").margin
    assert (given, type(given)) == (2.0, float)


def test_a_metric_other_than_an_accuracy_requires_a_margin() -> None:
    with pytest.raises(
        UsageError, match=refusal("sweep.margin=auto", "design.no_margin", metric="test_loss", unit="nats")
    ):
        design("judge.metric=test_loss")
    study_design = design("judge.metric=test_loss", "sweep.margin=0.05")
    assert (study_design.metric, study_design.margin) == ("test_loss", 0.05)


def test_a_search_is_judged_by_the_configured_metric() -> None:
    assert design("sweep=search", "judge.metric=ece", "sweep.margin=1").metric == "ece"


def test_a_replicate_has_one_seed_for_all_variants() -> None:
    seeds = {(cell.replicate, cell.seed) for cell in design("replicates=3").cells()}
    assert len(seeds) == 3
    assert len({seed for _, seed in seeds}) == 3


@pytest.mark.parametrize(
    "override",
    ["train.epochs=7", "data.clutter=2", "seed=1", "train.precision=fp32", "data.flip=true"],
)
def test_options_that_affect_results_change_the_keys_of_cells(override: str) -> None:
    base = {cell.key for cell in design("train.precision=bf16").cells()}
    assert base.isdisjoint(cell.key for cell in design("train.precision=bf16", override).cells())


def test_a_knob_only_changes_the_keys_of_variants_that_have_it() -> None:
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
def test_options_that_do_not_affect_results_do_not_change_keys(override: str) -> None:
    base = {cell.key for cell in design("replicates=8").cells()}
    assert base.issuperset(cell.key for cell in design(override).cells())


def test_the_protocol_has_resolved_values_for_auto() -> None:
    protocol = design().protocol
    assert protocol["train"]["precision"] in ("fp32", "bf16")
    assert protocol["train"]["fused"] in ("on", "off")
    assert (protocol["train"]["memory_format"], protocol["device"]) == ("contiguous", "cpu")


def test_a_stored_study_is_read_with_its_own_protocol() -> None:
    stored = design("train.precision=bf16", "train.memory_format=channels_last").protocol | {"device": "cuda"}
    assert make_design(compose_config([]), stored=stored).protocol == stored
    asked = make_design(compose_config(["train.precision=fp32"]), stored=stored).protocol
    assert protocol_differences(stored, asked) == [
        worded("study.difference", option="train.precision", stored="bf16", asked="fp32")
    ]


def test_a_neutral_option_is_part_of_the_protocol_only_if_it_is_set() -> None:
    default, decaying = design(), design("train.decay=all")
    assert "decay" not in default.protocol["train"]
    assert design("train.decay=weights").protocol == default.protocol
    assert decaying.protocol["train"] == default.protocol["train"] | {"decay": "all"}
    assert not {cell.key for cell in default.cells()} & {cell.key for cell in decaying.cells()}
    assert TrainConfig(**default.protocol["train"]).decay == "weights"
    assert protocol_differences(default.protocol, decaying.protocol) == [
        worded("study.difference", option="train.decay", stored="weights", asked="all")
    ]
    assert protocol_differences(decaying.protocol, default.protocol) == [
        worded("study.difference", option="train.decay", stored="all", asked="weights")
    ]


def test_a_neutral_option_at_0_is_off_in_differences_of_protocols() -> None:
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
def test_a_neutral_option_at_its_default_does_not_change_keys(setting: str) -> None:
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
        (["train.graphs=on"], refusal("train.graphs=on", "design.graphs_on_cpu")),
        (
            ["train.graphs=on", "train.compile=reduce-overhead"],
            refusal("train.graphs=on", "design.graphs_twice", mode="reduce-overhead"),
        ),
        (["train.mixup=-1"], refusal("train.mixup=-1.0", "options.below", least="0.0")),
        (["train.cutmix=-0.5"], refusal("train.cutmix=-0.5", "options.below", least="0.0")),
        (["train.ema=1"], refusal("train.ema=1.0", "options.over", most="0.999999")),
        (["train.optimizer=adam"], refusal("train.optimizer=adam", "options.unknown", near="adamw")),
        (["train.decay=gates"], refusal("train.decay=gates", "options.unknown", valid="weights, all")),
    ],
)
def test_invalid_designs_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        design(*overrides)


def test_an_empty_name_of_a_variant_is_refused() -> None:
    config = compose_config(["device=cpu"])
    config.sweep.variants[" "] = {"attention": "none"}
    with pytest.raises(UsageError, match=refusal("sweep.variants", "design.no_name")):
        make_design(config)


def test_the_protocol_consists_of_json_types() -> None:
    study_design = design()
    assert json.loads(json.dumps(study_design.protocol)) == study_design.protocol


def test_local_paths_are_not_part_of_the_protocol() -> None:
    study_design = design("data=imagenet_subset", "data.root=/somewhere", "data.cache=/tmp", "data.memory=mapped")
    assert study_design.protocol == design("data=imagenet_subset", "data.skip_corrupt=true").protocol
    assert not {"root", "cache", "memory", "skip_corrupt"} & study_design.protocol["data"].keys()
    assert study_design.protocol["data"]["resolution"] == 64


@pytest.mark.parametrize(("resolution", "stem"), [(64, "cifar"), (65, "imagenet")])
def test_the_stem_depends_on_the_resolution(resolution: int, stem: str) -> None:
    study_design = design("data=imagenet_subset", f"data.resolution={resolution}", "model=resnet18")
    assert {variant.model["stem"] for variant in study_design.variants} == {stem}


def test_cuda_without_a_cuda_device_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("needs a machine without a CUDA device")
    with pytest.raises(UsageError, match=refusal("device=cuda", "machine.no_cuda", valid="auto")):
        make_design(compose_config(["device=cuda"]))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [(("data.validation=0.2",), "data.no_search"), (("data.seed=replicate", "data=cifar10"), "data.nothing_to_draw")],
)
def test_data_options_without_an_effect_are_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UsageError, match=refusal(overrides[0], reason)):
        design(*overrides)
