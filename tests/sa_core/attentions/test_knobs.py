from __future__ import annotations

import inspect
import math
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_core import ATTENTION, ShuffleAttention, SpatialGroupEnhance
from sa_core.attentions.controls import MatchedSqueezeExcitation
from sa_core.attentions.declaration import Knobs, check_value, default_of
from sa_core.attentions.knobs import (
    ATTENTIONS,
    CbamKnobs,
    ConstantKnobs,
    EfficientChannelKnobs,
    FrozenKnobs,
    GlobalContextKnobs,
    GroupedKnobs,
    MatchedKnobs,
    ShuffleAttentionKnobs,
    SpatialGroupEnhanceKnobs,
    SqueezeExcitationKnobs,
    default_groups,
    default_reduction,
    norm_groups,
)
from sa_core.backbones.insertion_points import POSITIONS, Backbone
from sa_core.backbones.registry import BACKBONES
from sa_core.errors import OptionError
from tests.wording import refusal, worded

# The number of channels per group is a multiple of it: a group of shuffle attention has two equal halves.
MULTIPLES = {ShuffleAttentionKnobs: 2, FrozenKnobs: 2, MatchedKnobs: 2, SpatialGroupEnhanceKnobs: 1}
grouped = st.sampled_from(list(MULTIPLES))
REDUCED = (SqueezeExcitationKnobs, CbamKnobs, GlobalContextKnobs)


@given(grouped, st.integers(0, 300), st.integers(-2, 300))
def test_fitting_groups_divide_the_channels(knobs: type[GroupedKnobs], channels: int, groups: int) -> None:
    fits = groups >= 1 and channels >= 1 and channels % (MULTIPLES[knobs] * groups) == 0
    assert (groups in knobs.fitting_groups(channels)) == fits
    if fits:
        assert knobs(groups).groups_on(channels) == groups
    else:
        with pytest.raises(OptionError, match=rf"groups={groups} does not (split|divide) {channels} channels"):
            knobs(groups).groups_on(channels)


@given(grouped, st.integers(0, 300))
def test_fitting_groups_are_ascending(knobs: type[GroupedKnobs], channels: int) -> None:
    fitting = knobs.fitting_groups(channels)
    assert fitting == sorted(set(fitting))


@given(grouped, st.integers(0, 200), st.integers(-2, 300))
def test_clamp_uses_the_largest_number_of_groups_that_fits(
    knobs: type[GroupedKnobs], channels: int, groups: int
) -> None:
    clamped = knobs(groups, "clamp")
    fewer = [k for k in range(1, groups + 1) if channels and channels % (MULTIPLES[knobs] * k) == 0]
    if fewer:
        assert clamped.groups_on(channels) == max(fewer)
    else:
        with pytest.raises(OptionError, match=f"groups={groups} does not"):
            clamped.groups_on(channels)


def test_an_error_of_groups_lists_the_numbers_that_fit() -> None:
    with pytest.raises(
        OptionError, match=refusal("groups=64", "knobs.not_split", channels=64, then="1, 2, 4, 8, 16, ")
    ):
        ShuffleAttentionKnobs().check(64)
    with pytest.raises(
        OptionError, match=refusal("groups=5", "knobs.not_divided", channels=12, then="1, 2, 3, 4, 6, 12)")
    ):
        SpatialGroupEnhanceKnobs(5).check(12)
    with pytest.raises(OptionError, match=refusal("groups=1", "knobs.not_split", channels=7, then="none)")):
        ShuffleAttentionKnobs(1, "clamp").check(7)


@pytest.mark.parametrize(
    ("backbone", "groups"),
    [
        ("resnet50", 64),
        ("resnet101", 64),
        ("resnet18", 16),
        ("resnet34", 16),
        ("resnet8", 4),
        ("resnet20", 4),
        ("resnet32", 4),
        ("resnet56", 4),
    ],
)
def test_default_groups_scale_64_to_the_width_of_a_backbone(backbone: str, groups: int) -> None:
    widths = [place.channels for place in BACKBONES[backbone].insertion_points()]
    for knobs in MULTIPLES:
        assert default_groups(knobs, widths) == groups


@given(grouped, st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_default_groups_fit_every_insertion_point(knobs: type[GroupedKnobs], widths: list[int]) -> None:
    groups = default_groups(knobs, iter(widths))
    fitting = [k for k in range(1, 301) if all(width % (MULTIPLES[knobs] * k) == 0 for width in widths)]
    if fitting:
        assert groups in fitting
    assert groups == max((k for k in fitting if k <= 64 and min(widths) // k >= 4), default=1)


@pytest.mark.parametrize(
    ("backbone", "reduction"),
    [
        ("resnet50", 16),
        ("resnet101", 16),
        ("resnet18", 4),
        ("resnet34", 4),
        ("resnet8", 1),
        ("resnet56", 1),
        ("shufflenet_v2_x0_5", 1),
        ("shufflenet_v2_x1_0", 3),
    ],
)
def test_the_default_reduction_scales_16_to_the_width_of_a_backbone(backbone: str, reduction: int) -> None:
    assert default_reduction(place.channels for place in BACKBONES[backbone].insertion_points()) == reduction


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_the_default_reduction_gives_16_hidden_units_or_one_per_channel(widths: list[int]) -> None:
    for knobs in REDUCED:
        default = knobs(default_reduction(widths))
        assert all(default.hidden_units_on(width) >= min(width, 16) for width in widths)


@given(st.sampled_from(list(BACKBONES.values())), st.sampled_from(POSITIONS), st.data())
def test_no_insertion_point_has_fewer_than_four_hidden_units_by_default(
    backbone: Backbone, position: str, data: st.DataObject
) -> None:
    numbers = st.sets(st.integers(1, len(backbone.stages)), min_size=1)
    stages = "+".join(map(str, data.draw(numbers)))
    reduction = default_reduction(place.channels for place in backbone.insertion_points())
    for place in backbone.selected_points(position, stages):
        assert min(knobs(reduction).hidden_units_on(place.channels) for knobs in REDUCED) >= 4


@pytest.mark.parametrize(
    ("norm", "channels", "groups"),
    [
        ("instance", 6, 6),
        ("layer", 6, 1),
        ("group:2", 6, 2),
        ("group:6", 6, 6),
        ("batch", 6, None),
        ("none", 6, None),
    ],
)
def test_norm_groups_returns_the_number_of_groups(norm: str, channels: int, groups: int | None) -> None:
    assert norm_groups(norm, channels) == groups


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ("group", refusal("norm=group", "options.unknown", valid="instance, group:<k>, layer, batch, none")),
        ("group:", refusal("norm=group", "options.unknown")),
        ("group:two", refusal("norm=group:two", "options.unknown")),
        ("group:-1", refusal("norm=group:-1", "options.unknown")),
        ("groups:2", refusal("norm=groups:2", "options.unknown")),
        ("", refusal("norm=", "options.unknown")),
        ("group:0", refusal("norm=group:0", "options.unknown")),
        ("group:1", refusal("norm=group:1", "design.layer")),
        ("group:4", refusal("norm=group:4", "knobs.branch", channels=6)),
    ],
)
def test_an_invalid_norm_raises_an_error_with_the_valid_ones(norm: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        norm_groups(norm, 6)


def test_the_norms_listed_in_an_error_are_valid() -> None:
    with pytest.raises(OptionError, match="norm=group:4 does not divide") as refused:
        norm_groups("group:4", 6)
    assert {"group:2", "group:3", "group:6"} <= set(refused.value.choices)
    for norm in refused.value.choices:
        norm_groups(norm, 6)


@pytest.mark.parametrize(
    ("set_knobs", "idle"),
    [
        ({"branches": "spatial", "pooling": "max"}, {"pooling"}),
        ({"branches": "none", "pooling": "avg_max"}, {"pooling"}),
        ({"branches": "channel", "norm": "batch"}, {"norm"}),
        ({"branches": "channel", "norm_affine": False}, {"norm_affine"}),
        ({"branches": "channel", "norm": "none", "norm_affine": False}, {"norm", "norm_affine"}),
        ({"branches": "none", "norm": "batch"}, {"norm"}),
        ({"branches": "none", "norm_affine": False}, {"norm_affine"}),
        ({"norm": "none", "norm_affine": False}, {"norm_affine"}),
        ({"transform": "none", "gate_bias": 0.0}, {"gate_bias"}),
        ({"branches": "spatial", "transform": "affine_channel", "gate_bias": 0.0}, {"gate_bias", "transform"}),
        ({"branches": "spatial", "transform": "affine_channel"}, {"transform"}),
        ({"branches": "channel", "transform": "affine_channel"}, {"transform"}),
        ({"branches": "none", "gate_bias": 0.0}, {"gate_bias"}),
        ({"branches": "none", "transform": "conv1x1"}, {"transform"}),
        ({"branches": "none", "gate": "tanh1"}, {"gate"}),
        ({"branches": "both", "removed": "reassign"}, {"removed"}),
        ({"branches": "none", "removed": "reassign"}, {"removed"}),
        ({"shuffle": False, "shuffle_groups": 4}, {"shuffle_groups"}),
        ({"shuffle": False, "permutation": "random"}, {"permutation"}),
        ({"permutation": "random", "shuffle_groups": 4}, {"shuffle_groups"}),
        # similar cases that have an effect
        ({"branches": "spatial", "norm": "batch", "norm_affine": False, "removed": "reassign"}, set()),
        ({"branches": "channel", "pooling": "max", "removed": "reassign", "gate": "none"}, set()),
        ({"branches": "channel", "transform": "affine", "gate_bias": 0.0}, set()),
        ({"transform": "affine_channel", "gate_bias": 0.0}, set()),
        ({"branches": "spatial", "transform": "conv1x1", "gate_bias": 0.0}, set()),
        ({"norm": "none", "transform": "none", "gate": "none", "pooling": "max"}, set()),
        ({"permutation": "random"}, set()),
        ({"shuffle_groups": 4}, set()),
        ({"shuffle": False}, set()),
    ],
)
@pytest.mark.parametrize("knobs", [ShuffleAttentionKnobs, FrozenKnobs])
def test_a_knob_without_effect_raises_an_error_that_names_it(
    knobs: type[ShuffleAttentionKnobs], set_knobs: dict[str, Any], idle: set[str]
) -> None:
    built = knobs(groups=2, **set_knobs)
    assert set(built.without_effect()) == idle
    if idle:
        with pytest.raises(OptionError, match=rf"({'|'.join(idle)})=\S+ {worded('knobs.idle')}: .*\w+="):
            built.check(16)
    else:
        built.check(16)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_defaults_never_raise_an_error(name: str) -> None:
    ATTENTIONS[name]().check(128)
    assert ATTENTIONS[name]().without_effect() == {}


@pytest.mark.parametrize("branches", ["both", "channel", "spatial", "none"])
@pytest.mark.parametrize("transform", ["affine", "affine_channel", "conv1x1", "none"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_idle_knob_at_its_default_never_raises_an_error(branches: str, transform: str, shuffle: bool) -> None:
    refused = ShuffleAttentionKnobs(branches=branches, transform=transform, shuffle=shuffle).without_effect()
    alone = branches in ("channel", "spatial")
    names_twice = (branches == "none" and transform != "affine") or (alone and transform == "affine_channel")
    assert set(refused) == ({"transform"} if names_twice else set())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (ShuffleAttentionKnobs(groups=0), refusal("groups=0", "options.below", least=1)),
        (ShuffleAttentionKnobs(norm="weight"), refusal("norm=weight", "options.unknown")),
        (ShuffleAttentionKnobs(norm="group:1"), refusal("norm=group:1", "design.layer")),
        (
            ShuffleAttentionKnobs(groups_policy="fit"),
            refusal("groups_policy=fit", "options.unknown", valid="strict, clamp"),
        ),
        (
            ShuffleAttentionKnobs(branches="all"),
            refusal("branches=all", "options.unknown", valid="both, channel, spatial, none"),
        ),
        (ShuffleAttentionKnobs(removed="gone"), refusal("removed=gone", "options.unknown", valid="identity, reassign")),
        (
            ShuffleAttentionKnobs(transform="fc"),
            refusal("transform=fc", "options.unknown", valid="affine, affine_channel, conv1x1"),
        ),
        (ShuffleAttentionKnobs(pooling="sum"), refusal("pooling=sum", "options.unknown", valid="avg, max, avg_max")),
        (
            ShuffleAttentionKnobs(gate="relu"),
            refusal("gate=relu", "options.unknown", valid="sigmoid, hard_sigmoid, tanh1, none"),
        ),
        (ShuffleAttentionKnobs(gate_bias=21.0), refusal("gate_bias=21.0", "options.over", most=20)),
        (ShuffleAttentionKnobs(gate_bias=-21.0), refusal("gate_bias=-21.0", "options.below", least=-20)),
        (ShuffleAttentionKnobs(gate_bias=math.nan), refusal("gate_bias=nan", "options.below", least=-20)),
        (ShuffleAttentionKnobs(shuffle_groups=1), refusal("shuffle_groups=1", "options.below", least=2)),
        (
            ShuffleAttentionKnobs(permutation="reverse"),
            refusal("permutation=reverse", "options.unknown", valid="interleave, random"),
        ),
        (MatchedKnobs(groups=-1), refusal("groups=-1", "options.below", least=1)),
        (SpatialGroupEnhanceKnobs(groups_policy="Clamp"), refusal("groups_policy=Clamp", "options.unknown")),
        (SqueezeExcitationKnobs(0), refusal("reduction=0", "options.below", least=1)),
        (EfficientChannelKnobs(4), refusal("kernel_size=4", "knobs.no_middle", then="or 0")),
        (EfficientChannelKnobs(-1), refusal("kernel_size=-1", "options.below", least=0)),
        (CbamKnobs(reduction=0), refusal("reduction=0", "options.below", least=1)),
        (CbamKnobs(kernel_size=0), refusal("kernel_size=0", "options.below", least=1)),
        (CbamKnobs(kernel_size=6), refusal("kernel_size=6", "knobs.no_middle")),
        (GlobalContextKnobs(fusion="both"), refusal("fusion=both", "options.unknown", valid="add, scale")),
    ],
)
def test_a_value_that_will_not_do_is_refused_with_the_reason(knobs: Knobs, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        knobs.check_values()
    with pytest.raises(OptionError, match=f"^{message}"):
        knobs.check(128)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (ShuffleAttentionKnobs(2, norm="group:3"), refusal("norm=group:3", "knobs.branch", channels=4, valid="g")),
        (ShuffleAttentionKnobs(2, shuffle_groups=3), refusal("shuffle_groups=3", "knobs.not_divided", channels=16)),
    ],
)
def test_a_value_that_does_not_fit_the_channels_raises_an_error(knobs: Knobs, message: str) -> None:
    knobs.check_values()
    with pytest.raises(OptionError, match=f"^{message}"):
        knobs.check(16)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"groups": 2.0}, refusal("groups=2.0", "options.no_whole_number")),
        ({"groups": "4"}, refusal("groups=4", "options.no_whole_number")),
        ({"groups": True}, refusal("groups=True", "options.no_whole_number")),
        ({"norm_affine": "false"}, refusal("norm_affine=false", "options.neither")),
        ({"shuffle": 1}, refusal("shuffle=1", "options.neither")),
        ({"gate_bias": "1"}, refusal("gate_bias=1", "options.no_number")),
        ({"gate_bias": True}, refusal("gate_bias=True", "options.no_number")),
        ({"norm": None}, refusal("norm=None", "options.no_text")),
    ],
)
def test_a_value_of_the_wrong_type_raises_an_error(value: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        ShuffleAttentionKnobs(**value).check_values()


def test_an_integer_is_a_valid_float() -> None:
    ShuffleAttentionKnobs(2, gate_bias=0).check(16)
    ConstantKnobs(1).check(16)


def test_a_branch_has_half_of_a_group_or_the_whole_group_if_reassigned() -> None:
    assert ShuffleAttentionKnobs(4).branch_channels(48) == 6
    assert ShuffleAttentionKnobs(4, branches="channel", removed="reassign").branch_channels(48) == 12
    assert ShuffleAttentionKnobs(5, "clamp").branch_channels(48) == 6


def test_a_norm_is_checked_against_the_channels_of_a_reassigned_branch() -> None:
    ShuffleAttentionKnobs(2, branches="spatial", removed="reassign", norm="group:8").check(16)
    with pytest.raises(OptionError, match=refusal("norm=group:8", "knobs.branch", channels=4)):
        ShuffleAttentionKnobs(2, branches="spatial", norm="group:8").check(16)


def test_every_name_has_a_module_with_those_knobs_and_defaults() -> None:
    assert list(ATTENTIONS) == list(ATTENTION)
    for name, knobs in ATTENTIONS.items():
        declared = {knob.name: knob.default for knob in fields(knobs)}
        if name == "frozen":  # passes its arguments to ShuffleAttention: see the test below
            continue
        parameters = dict(inspect.signature(ATTENTION[name]).parameters)
        assert {"channels", "device", "dtype"} <= set(parameters), name
        for general in ("channels", "device", "dtype", "fused"):  # only shuffle attention has `fused`
            parameters.pop(general, None)
        assert {knob: parameter.default for knob, parameter in parameters.items()} == declared, name


def test_frozen_shuffle_attention_accepts_every_declared_knob() -> None:
    defaults = {knob.name: knob.default for knob in fields(FrozenKnobs)}
    assert defaults == {knob.name: knob.default for knob in fields(ShuffleAttentionKnobs)}
    assert repr(ATTENTION["frozen"](128, **defaults)) == repr(ATTENTION["frozen"](128))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_knob_has_a_help_text(name: str) -> None:
    for knob in fields(ATTENTIONS[name]):
        assert knob.metadata["help"].endswith("."), knob.name
        assert default_of(ATTENTIONS[name], knob.name) == knob.default


def test_the_default_constant_is_the_initial_value_of_the_official_gates() -> None:
    assert ConstantKnobs().value == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-15)


def test_the_tables_do_not_import_torch() -> None:
    code = (
        "import sa_core, sa_core.attentions.knobs, sa_core.backbones.registry, sa_core.seeds, sys;"
        "sa_core.attentions.knobs.ATTENTIONS['sa'](groups=4).check(16);"
        "sa_core.backbones.registry.find_backbone('resnet50').insertion_points('pre');"
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'torchvision', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "allowed", "reason"),
    [
        ("c", {"choices": ("a", "b")}, "is not a valid choice"),
        (0, {"minimum": 1}, "must be at least 1"),
        (0.0, {"above": 0.0}, "must be more than 0"),
        (2, {"maximum": 1}, "must be at most 1"),
        (math.nan, {"minimum": 0.0}, "must be at least 0.0"),
        (math.inf, {}, "must be finite"),
    ],
)
def test_a_value_is_checked_against_the_constraints_of_its_option(value: Any, allowed: Any, reason: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_value("option", value, allowed)
    assert (caught.value.option, caught.value.reason) == ("option", reason)
    check_value("option", 1, dict.fromkeys(("choices", "minimum", "above", "maximum")))


@pytest.mark.parametrize("layer", [ShuffleAttention, SpatialGroupEnhance, MatchedSqueezeExcitation])
@pytest.mark.parametrize(
    ("channels", "groups"), [(2048, 64), (256, 64), (128, 32), (64, 16), (48, 12), (16, 4), (2, 1)]
)
def test_automatic_groups_of_a_layer_depend_on_its_width(layer: type[Any], channels: int, groups: int) -> None:
    assert layer(channels, groups="auto").groups == groups
    assert layer(channels, "auto").groups == groups


@pytest.mark.parametrize("layer", [ShuffleAttention, SpatialGroupEnhance, MatchedSqueezeExcitation])
def test_groups_of_another_string_raise_an_error(layer: type[Any]) -> None:
    with pytest.raises(OptionError, match=refusal("groups=8", "knobs.no_groups")):
        layer(64, groups="8")
