from __future__ import annotations

import itertools
import sys
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.benchmarking import plan
from ablations.benchmarking.plan import MODULE, NETWORK, BenchmarkPlan, Comparison, make_plan
from ablations.benchmarking.workloads import Shape
from ablations.common import machine
from ablations.common.errors import UsageError
from ablations.config import BenchConfig, Config
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.measure.record import Setting, Subject
from sa_core import ShuffleAttention
from tests.sa_core.official import OfficialShuffleAttention

# One backbone, one module, one setting.
SMALL = ("device=cpu", "sweep=rivals", "sweep.factors.attention=[sa]", "bench=quick", "bench.also=[]")
OFFICIAL = "tests.sa_core.official:OfficialShuffleAttention"
WHOLE = "bench.compile_networks"
LISTS = [declared.name for declared in fields(BenchConfig) if declared.metadata["choices"]]


@cache
def configured(*overrides: str) -> Config:
    return compose_config([*SMALL, *overrides])


def planned(*overrides: str) -> BenchmarkPlan:
    return make_plan(configured(*overrides))


def settings_of(benchmark: BenchmarkPlan, kind: str = NETWORK) -> list[tuple[str, str, str]]:
    every = [(each.precision, each.layout, each.compile) for each in benchmark.comparisons if each.kind == kind]
    return list(dict.fromkeys(every))


def names_of(comparison: Comparison) -> list[str]:
    return [candidate.name for candidate in comparison.candidates]


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx512_bf16"})


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx2"})


FULL = ("bench.precision=[fp32,auto]", "bench.layout=[contiguous,channels_last]", "bench.compile=[eager,compiled]",
        "bench.compile_networks=true")  # fmt: skip


@pytest.mark.usefixtures("with_bf16")
def test_other_entries_are_varied_one_at_a_time_from_the_first_ones() -> None:
    assert settings_of(planned(*FULL)) == [
        ("fp32", "contiguous", "eager"),
        ("fp32", "contiguous", "compiled"),
        ("fp32", "channels_last", "eager"),
        ("bf16", "contiguous", "eager"),
    ]


@pytest.mark.usefixtures("with_bf16")
def test_all_combinations_are_measured_with_crossed() -> None:
    every = itertools.product(("fp32", "bf16"), ("contiguous", "channels_last"), ("eager", "compiled"))
    assert settings_of(planned(*FULL, "bench.crossed=true")) == list(every)


PRECISIONS = st.lists(st.sampled_from(["fp32", "auto", "bf16"]), min_size=1, max_size=4)
LAYOUTS = st.lists(st.sampled_from(["contiguous", "channels_last"]), min_size=1, max_size=3)
COMPILES = st.lists(st.sampled_from(["eager", "compiled"]), min_size=1, max_size=3)


@settings(max_examples=40)
@given(PRECISIONS, LAYOUTS, COMPILES, st.booleans())
def test_every_listed_entry_is_measured_once(
    precisions: list[str], layouts: list[str], compiles: list[str], crossed: bool
) -> None:
    bench = BenchConfig(
        of=["networks"], precision=precisions, layout=layouts, compile=compiles, crossed=crossed,
        compile_networks=True, also=[],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "cpu_flags", lambda: {"amx_bf16"})
        distinct = settings_of(benchmark := make_plan(replace(configured(), bench=bench)))
    assert len(distinct) == len(benchmark.comparisons)  # no duplicates
    listed = [
        list(dict.fromkeys(names))
        for names in ([name.replace("auto", "bf16") for name in precisions], layouts, compiles)
    ]
    assert distinct[0] == tuple(names[0] for names in listed)
    assert [set(column) for column in zip(*distinct, strict=True)] == [set(names) for names in listed]
    sizes = [len(names) for names in listed]
    assert len(distinct) == (sizes[0] * sizes[1] * sizes[2] if crossed else 1 + sum(size - 1 for size in sizes))


@pytest.mark.parametrize(
    ("flags", "asked", "expected"),
    [
        ({"avx512_bf16"}, "[fp32,auto]", ["fp32", "bf16"]),
        ({"amx_bf16"}, "[auto]", ["bf16"]),
        ({"avx512_bf16"}, "[auto,bf16]", ["bf16"]),
        ({"avx2"}, "[fp32,auto]", ["fp32"]),
        ({"avx2"}, "[auto,fp32]", ["fp32"]),
        ({"avx2"}, "[fp32,fp32]", ["fp32"]),
    ],
)
def test_auto_is_the_best_precision_of_the_machine_without_duplicates(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], asked: str, expected: list[str]
) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: flags)
    benchmark = planned(f"bench.precision={asked}")
    assert [precision for precision, _, _ in settings_of(benchmark)] == expected
    assert len(benchmark.comparisons) == 4 * len(expected)  # three stages and the network


@pytest.mark.usefixtures("without_bf16")
def test_bf16_on_a_cpu_without_it_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        planned("bench.precision=[fp32,bf16]")
    assert str(caught.value) == (
        "bench.precision=bf16: is not available: this CPU has no instructions for it; valid: fp32"
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without bf16, for plans."""
    monkeypatch.setattr(plan, "resolve_device", lambda _: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))


@pytest.mark.usefixtures("gpu", "with_bf16")
def test_bf16_on_a_gpu_without_it_is_refused_independent_of_the_cpu() -> None:
    with pytest.raises(UsageError, match=r"^bench\.precision=bf16: is not available: this GPU has no instructions"):
        planned("bench.precision=[bf16]")
    precisions = {precision for precision, _, _ in settings_of(planned("bench.precision=[auto]"))}
    assert precisions == {"fp32"}


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_calls_are_timed_eager_and_captured() -> None:
    for kind in (MODULE, NETWORK):
        assert [how for _, _, how in settings_of(planned(), kind)] == ["eager", "captured"]


@pytest.mark.usefixtures("gpu")
def test_batches_are_larger_on_a_gpu() -> None:
    assert {(each.kind, each.batch) for each in planned("bench.network_batch=0").comparisons} == {
        (MODULE, 64), (NETWORK, 64),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "module", "network"),
    [
        (["bench.network_batch=0"], 8, 4),
        (["bench.module_batch=3", "bench.network_batch=5"], 3, 5),
        ([], 8, 2),  # bench=quick
    ],
)
def test_batch_sizes_are_configured_or_the_defaults_of_a_cpu(overrides: list[str], module: int, network: int) -> None:
    batches = {(comparison.kind, comparison.batch) for comparison in planned(*overrides).comparisons}
    assert batches == {(MODULE, module), (NETWORK, network)}


@pytest.mark.parametrize(
    ("overrides", "modules", "networks"),
    [
        (["bench.compile=[eager,compiled]"], ["eager", "compiled"], ["eager"]),
        (["bench.compile=[compiled,eager]"], ["eager", "compiled"], ["eager"]),
        (["bench.compile=[eager,compiled]", f"{WHOLE}=true"], ["eager", "compiled"], ["eager", "compiled"]),
        ([f"{WHOLE}=true"], ["eager"], ["eager"]),
        (["bench.compile=[captured,compiled]", f"{WHOLE}=true"], ["compiled"], ["compiled"]),  # of a CPU
    ],
)
def test_networks_are_compiled_only_on_request(overrides: list[str], modules: list[str], networks: list[str]) -> None:
    benchmark = planned(*overrides)
    assert {compiled for _, _, compiled in settings_of(benchmark, MODULE)} == set(modules)
    assert {compiled for _, _, compiled in settings_of(benchmark, NETWORK)} == set(networks)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ("[modules]", [(MODULE, "layer1"), (MODULE, "layer2"), (MODULE, "layer3")]),
        ("[networks]", [(NETWORK, "")]),
        ("[networks,modules]", [(MODULE, "layer1"), (MODULE, "layer2"), (MODULE, "layer3"), (NETWORK, "")]),
    ],
)
def test_modules_networks_or_both_are_measured(of: str, expected: list[tuple[str, str]]) -> None:
    assert [(each.kind, each.shape.stage) for each in planned(f"bench.of={of}").comparisons] == expected


@pytest.mark.parametrize(
    ("overrides", "side", "model"),
    [
        ([], 32, {"name": "resnet8"}),
        (["model=resnet18"], 224, {"name": "resnet18", "stem": "imagenet"}),
        (["model=shufflenet_v2_x0_5"], 224, {"name": "shufflenet_v2_x0_5", "stem": "imagenet"}),
        # The resolution of the data set, except for digits.
        (["model=resnet18", "data=cifar10"], 32, {"name": "resnet18", "stem": "cifar"}),
        (["model=resnet18", "data=imagenet_subset"], 64, {"name": "resnet18", "stem": "cifar"}),
        (["data=imagenet_subset", "data.resolution=160"], 160, {"name": "resnet8"}),
        (["model=resnet18", "data=imagenette"], 128, {"name": "resnet18", "stem": "imagenet"}),
        # bench.resolution has priority, and determines the stem.
        (["bench.resolution=40"], 40, {"name": "resnet8"}),
        (["bench.resolution=8"], 8, {"name": "resnet8"}),
        (["model=resnet18", "data=imagenette", "bench.resolution=64"], 64, {"name": "resnet18", "stem": "cifar"}),
        (["model=resnet18", "data=cifar10", "bench.resolution=65"], 65, {"name": "resnet18", "stem": "imagenet"}),
        (["model=resnet18", "bench.resolution=9", "model.stem=imagenet"], 9, {"name": "resnet18", "stem": "imagenet"}),
    ],
)
def test_the_resolution_is_configured_or_that_of_the_data_set_or_the_backbone(
    overrides: list[str], side: int, model: dict[str, str]
) -> None:
    benchmark = planned(*overrides, "bench.of=[networks]")
    (comparison,) = benchmark.comparisons
    assert benchmark.resolution == side
    assert comparison.shape == Shape("", 3, side, side)
    assert comparison.model == model
    assert [candidate.network["model"] for candidate in comparison.candidates if candidate.network] == [model]


@pytest.mark.parametrize("side", [1, 3, 7])
def test_images_that_are_too_small_are_refused(side: int) -> None:
    with pytest.raises(UsageError) as caught:
        planned(f"bench.resolution={side}")
    assert str(caught.value) == f"bench.resolution={side}: must be 0 or at least 8"


def test_a_resolution_that_is_too_small_for_the_backbone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_small(*_: object) -> list[Shape]:
        raise RuntimeError("the kernel is larger than the input\nand a second line")

    monkeypatch.setattr(plan, "shapes_of", too_small)  # all built-in backbones accept 8 pixels
    with pytest.raises(UsageError) as caught:
        planned("bench.resolution=9")
    assert str(caught.value) == "bench.resolution=9: does not fit resnet8: the kernel is larger than the input"


def test_a_third_party_class_is_named_by_its_module_and_has_the_backbones_groups() -> None:
    benchmark = planned(f"bench.also=[{OFFICIAL},torch.nn:BatchNorm2d]")
    for comparison in benchmark.comparisons:
        assert names_of(comparison) == ["sa", "official", "nn"]
    official, norm = (candidate.make(64) for candidate in benchmark.comparisons[0].candidates[1:])
    assert isinstance(official, OfficialShuffleAttention)
    assert official.groups == 4  # the automatic number of groups for CIFAR ResNets
    assert isinstance(norm, torch.nn.BatchNorm2d)
    wide = planned(f"bench.also=[{OFFICIAL}]", "model=resnet50", "bench.of=[networks]")
    module = wide.comparisons[0].candidates[1].make(256)
    assert isinstance(module, OfficialShuffleAttention)
    assert module.groups == 64
    assert benchmark.notes == wide.notes == ()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere", "must have the form package.module:Class"),
        (":Class", "must have the form package.module:Class"),
        ("torch.nn:", "must have the form package.module:Class"),
        ("nowhere.at_all:Class", "No module named 'nowhere'"),
        ("torch.nn:NoSuchLayer", "module 'torch.nn' has no attribute 'NoSuchLayer'"),
    ],
)
def test_a_class_that_cannot_be_imported_is_refused(path: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(f"bench.also=[{OFFICIAL},'{path}']")
    assert str(caught.value) == f"bench.also={path}: cannot be imported: {reason}"


@pytest.mark.parametrize("path", ["math:pi", "builtins:dict", ".relative:Class", "broken_on_purpose:Class"])
def test_anything_but_a_module_class_is_refused_in_one_line(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_on_purpose.py").write_text("class Class(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as caught:
        planned(f"bench.also=['{path}']")
    assert str(caught.value).startswith(f"bench.also={path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_without_the_tests_the_official_module_is_skipped_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tests.sa_core.official", None)
    benchmark = planned(f"bench.also=[{OFFICIAL}]")
    (note,) = benchmark.notes
    assert OFFICIAL in note
    assert {tuple(names_of(comparison)) for comparison in benchmark.comparisons} == {("sa",)}
    with pytest.raises(UsageError, match=f"^bench.also={OFFICIAL}: cannot be imported: "):
        planned(f"bench.also=[{OFFICIAL},torch.nn:BatchNorm2d]")  # an error, because it is not the default


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["bench.also=[torch.nn:BatchNorm2d,torch.nn:InstanceNorm2d]"], 3),  # both are named nn
        ([f"bench.also=[{OFFICIAL}]", "sweep.variants.official={attention: se}"], 3),  # named like a variant
        (["bench.also=[copy:Copier]"], 2),  # named like the baseline of modules
        (["sweep.variants.copy={attention: identity}"], 2),  # named like the baseline of modules
        (["sweep.variants.none={attention: se}"], 2),  # named like the baseline of networks, with attention
    ],
)
def test_the_subjects_of_a_comparison_have_distinct_names(
    overrides: list[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("copy.Copier", torch.nn.Identity, raising=False)
    # Rows, times and counts are stored by name. Duplicates may be refused or renamed.
    try:
        benchmark = planned(*overrides)
    except UsageError:
        return
    for comparison in benchmark.comparisons:
        assert len({comparison.baseline, *names_of(comparison)}) == 1 + count


def test_a_search_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        make_plan(compose_config(["device=cpu", "sweep=search"]))
    assert (
        str(caught.value)
        == "sweep=search: is a search, whose variants are not known in advance; use a sweep that lists its variants"
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["sweep.factors.attention.groups=[1,3]"],
        ["sweep.factors.attention.groups=[32]"],
        ["attention.norm=batch", "attention.branches=channel"],
    ],
)
def test_invalid_variants_are_refused_as_in_a_run(overrides: list[str]) -> None:
    config = compose_config(["device=cpu", "sweep=groups", *overrides])
    with pytest.raises(UsageError) as refused:
        make_design(config)
    with pytest.raises(UsageError) as caught:
        make_plan(config)
    assert str(caught.value) == str(refused.value)


TWO_BACKBONES = ("sweep=backbones", "sweep.factors={model: [resnet8, resnet20], attention: [none, sa]}")


def test_a_sweep_over_backbones_has_comparisons_for_each() -> None:
    benchmark = planned(*TWO_BACKBONES)
    assert [(each.kind, each.model["name"], each.shape.channels, names_of(each)) for each in benchmark.comparisons] == [
        (kind, model, channels, [f"{model}, sa"])
        for model in ("resnet8", "resnet20")
        for kind, channels in ((MODULE, 16), (MODULE, 32), (MODULE, 64), (NETWORK, 3))
    ]


@pytest.mark.parametrize("models", ["[resnet8, resnet20]", "[resnet8, resnet18]"])
def test_modules_of_two_backbones_have_distinct_places(models: str) -> None:
    benchmark = planned("sweep=backbones", f"sweep.factors={{model: {models}, attention: [none, sa]}}")
    shapes: dict[str, Subject] = {}
    subjects = [comparison.subject("copy") for comparison in benchmark.comparisons if comparison.kind == MODULE]
    assert len(set(subjects)) == len(subjects)  # otherwise rows would be ambiguous
    for subject in subjects:  # a column of a table has a single shape
        assert shapes.setdefault(subject.place, subject) == subject


@pytest.mark.parametrize(
    "overrides",
    [
        ["sweep=rivals", "sweep.factors.attention=[sa,se,eca,cbam,gc,sge]"],
        ["sweep=groups"],
        ["sweep=paper"],
        ["sweep=placement"],
        ["sweep=controls"],
        ["sweep=factorial"],
        list(TWO_BACKBONES),
        ["model=resnet18", "sweep.factors={model: {stem: [imagenet, cifar]}, attention: [none, sa]}",
         "sweep.variants={}", "sweep.baseline=stem=cifar"],
    ],
)  # fmt: skip
def test_every_variant_with_attention_is_measured(overrides: list[str]) -> None:
    config = compose_config(["device=cpu", "bench=quick", "bench.also=[]", *overrides])
    attended = {variant.name for variant in make_design(config).variants if variant.attention["name"] != "none"}
    benchmark = make_plan(config)
    for kind in (MODULE, NETWORK):
        measured = {name for each in benchmark.comparisons if each.kind == kind for name in names_of(each)}
        assert measured == attended


def test_the_attention_of_a_variant_has_its_knobs() -> None:
    benchmark = make_plan(
        compose_config(["device=cpu", "sweep=groups", "sweep.factors.attention.groups=[2,8]", "attention.gate=tanh1"])
    )
    modules = [candidate.make(64) for candidate in benchmark.comparisons[0].candidates]
    assert [(module.groups, module.knobs.gate) for module in modules if isinstance(module, ShuffleAttention)] == [
        (2, "tanh1"), (8, "tanh1"),
    ]  # fmt: skip


def test_a_comparison_has_title_subjects_and_setting() -> None:
    benchmark = planned("bench.precision=[fp32]", "bench.layout=[channels_last]", "bench.module_batch=3")
    module, network = benchmark.comparisons[1], benchmark.comparisons[3]
    assert (module.title, network.title) == (
        "modules on layer2, eager, fp32, channels_last", "resnet8, eager, fp32, channels_last",
    )  # fmt: skip
    assert (module.baseline, network.baseline) == ("copy", "none")
    assert module.subject("sa") == Subject("module", "sa", "layer2", 3, 32, 16, 16)
    assert network.subject("sa") == Subject("network", "sa", "resnet8", 2, 3, 32, 32)
    assert network.setting("forward") == Setting("forward", "eager", "fp32", "channels_last")


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.parametrize(
    ("choice", "modules", "networks"), [("quick", 1, 1), ("standard", 4, 3), ("full", 8, 8)]
)  # fmt: skip
def test_the_number_of_settings_of_each_bench_choice(choice: str, modules: int, networks: int) -> None:
    benchmark = planned(f"bench={choice}")
    assert (len(settings_of(benchmark, MODULE)), len(settings_of(benchmark, NETWORK))) == (modules, networks)


@pytest.mark.parametrize("name", LISTS)
def test_invalid_entries_of_lists_are_refused(name: str) -> None:
    for value in ("[nonsense]", "nonsense"):
        with pytest.raises(UsageError) as caught:
            configured(f"bench.{name}={value}")
        assert str(caught.value).startswith(f"bench.{name}=nonsense: is not a valid choice; valid: ")
    for value, reason in (("[]", f"bench.{name}=[]: is empty"), ("{a: 1}", "must be a list such as [a,b]")):
        with pytest.raises(UsageError) as caught:
            configured(f"bench.{name}={value}")
        assert reason in str(caught.value)


def test_the_options_that_are_lists_of_choices() -> None:
    assert LISTS == ["of", "modes", "metrics", "compile", "precision", "layout"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bench.resolution=-1", "bench.resolution=-1: must be at least 0"),
        ("bench.resolution=2000", "bench.resolution=2000: must be at most 1024"),
        ("bench.module_batch=-1", "bench.module_batch=-1: must be at least 0"),
        ("bench.seconds=-0.5", "bench.seconds=-0.5: must be at least 0.0"),
        ("bench.seconds=nan", "bench.seconds=nan: must be at least 0.0"),
        ("bench=quik", "bench=quik: unknown bench; did you mean quick?"),
    ],
)
def test_values_out_of_range_are_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        configured(override)
    assert str(caught.value).startswith(message)


def test_a_cpu_captures_no_calls() -> None:
    with pytest.raises(UsageError, match=r"^bench\.compile=captured: "):
        planned("device=cpu", "bench.compile=[captured]")
