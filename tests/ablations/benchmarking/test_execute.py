from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ablations.benchmarking import execute, workloads
from ablations.benchmarking.execute import Benchmark
from ablations.benchmarking.plan import MODULE, NETWORK, BenchmarkPlan, Comparison, make_plan
from ablations.benchmarking.report import frame_of
from ablations.benchmarking.workloads import Candidate
from ablations.common.sizes import MIB
from ablations.config import Config
from ablations.config.compose import compose_config
from ablations.measure.record import Measurement
from ablations.measure.speed import LEAST_COPIES, TWIN
from sa_core import create_model

SMALL = (
    "device=cpu", "sweep=rivals", "sweep.factors.attention=[sa]", "bench=quick", "bench.also=[]", "bench.seconds=0",
    "bench.module_batch=2", "bench.network_batch=2",
)  # fmt: skip
FORWARD, BACKWARD, STEP = "forward", "forward+backward", "training step"
RESNET50 = ("model=resnet50", "bench.also=[tests.sa_core.official:OfficialShuffleAttention]")
# In resnet50 at 224 pixels: batch norms and ReLUs count, biases and additions do not.
PLAIN_RESNET50, POOLED_BY_SA = 4_121_924_096, 2_759_680


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Reduces the time of the tests from minutes to seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on small feature maps and a busy machine, threads mostly wait for each other
    yield
    torch.set_num_threads(before)


@cache
def configured(*overrides: str) -> tuple[Config, BenchmarkPlan]:
    config = compose_config([*SMALL, *overrides])
    return config, make_plan(config)


def started(*overrides: str) -> tuple[Benchmark, tuple[Comparison, ...]]:
    config, plan = configured(*overrides)
    return Benchmark(plan, config.bench), plan.comparisons


def one_of(comparisons: tuple[Comparison, ...], kind: str) -> Comparison:
    return next(comparison for comparison in comparisons if comparison.kind == kind)


@pytest.fixture(scope="module")
def whole() -> tuple[Benchmark, tuple[Comparison, ...], list[Measurement]]:
    """A complete benchmark of minimal size, with its comparisons and measurements."""
    benchmark, comparisons = started()
    return benchmark, comparisons, [row for comparison in comparisons for row in benchmark.measure(comparison)]


@pytest.fixture(scope="module")
def frame(whole: tuple[Benchmark, tuple[Comparison, ...], list[Measurement]]) -> pd.DataFrame:
    return frame_of(whole[2], {})


def test_every_subject_is_a_row_in_every_mode(frame: pd.DataFrame) -> None:
    columns = ["kind", "place", "mode", "name"]
    expected = [
        (MODULE, stage, mode, name)
        for stage, mode, name in product(("layer1", "layer2", "layer3"), (FORWARD, BACKWARD), ("copy", "sa"))
    ] + [(NETWORK, "resnet8", mode, name) for mode, name in product((FORWARD, STEP), ("none", "sa"))]
    assert list(frame[columns].itertuples(index=False, name=None)) == expected
    assert set(frame["status"]) == {"measured"}


def test_all_available_quantities_are_measured(frame: pd.DataFrame) -> None:
    assert (frame[["ms", "ratio", "ratio_low", "ratio_high", "noise_low", "noise_high", "peak_mib"]] > 0).all(axis=None)
    assert (frame["ratio_low"] <= frame["ratio"]).all()
    assert (frame["ratio"] <= frame["ratio_high"]).all()
    assert frame["joules"].isna().all()  # CPUs have no energy counter
    for column in ("parameters", "buffers", "multiply_adds", "uncounted", "moved_mib", "least_mib", "saved_mib"):
        assert frame[column].notna().all()


def test_baselines_have_the_verdict_baseline_and_the_ratio_one(frame: pd.DataFrame) -> None:
    baseline = frame["name"].isin(["copy", "none"])
    assert (frame["verdict"] == "baseline").equals(baseline)
    assert (frame.loc[baseline, ["ratio", "ratio_low", "ratio_high"]] == 1).all(axis=None)


def test_parameters_and_multiply_adds_are_counted_correctly(frame: pd.DataFrame) -> None:
    networks = frame[(frame["kind"] == NETWORK) & (frame["mode"] == STEP)].set_index("name")
    assert networks["parameters"].to_dict() == {
        name: sum(parameter.numel() for parameter in create_model("resnet8", attention=name, **knobs).parameters())
        for name, knobs in (("none", {}), ("sa", {"groups": 4}))
    }
    pooled = sum(channels * side**2 / 2 for channels, side in ((16, 32), (32, 16), (64, 8)))
    assert networks.loc["sa", "multiply_adds"] - networks.loc["none", "multiply_adds"] == pooled
    norms = sum(2 * channels + 1 for channels in (16, 16, 16, 32, 32, 64, 64))  # buffers
    assert networks["buffers"].to_dict() == {"none": norms, "sa": norms}


def test_attention_increases_memory(frame: pd.DataFrame) -> None:
    for (_, _, mode), rows in frame.groupby(["kind", "place", "mode"]):
        memory = rows.set_index("name")[["saved_mib", "peak_mib"]]
        baseline = "copy" if "copy" in memory.index else "none"
        assert memory.loc["sa", "saved_mib"] > memory.loc[baseline, "saved_mib"]
        if mode != FORWARD:
            assert memory.loc["sa", "peak_mib"] > memory.loc[baseline, "peak_mib"]
    peaks = frame.set_index(["name", "mode"])["peak_mib"]
    for name in ("none", "sa"):
        assert peaks[name, STEP].item() > 1.5 * peaks[name, FORWARD].max()
    copies = frame[(frame["name"] == "copy") & (frame["place"] == "layer1")]
    elements = 2 * 16 * 32 * 32
    assert (copies["least_mib"] == 2 * 4 * elements / MIB).all()  # one read and one write
    assert (copies["moved_mib"] == copies["least_mib"]).all()


def test_samples_contain_all_measured_times(
    whole: tuple[Benchmark, tuple[Comparison, ...], list[Measurement]], frame: pd.DataFrame
) -> None:
    samples = pd.DataFrame(whole[0].samples)
    place = ["kind", "place", "batch", "channels", "height", "width", "mode", "compile", "precision", "layout"]
    groups = samples.groupby(place, sort=False)
    assert len(groups) == 4 * 2  # comparisons and modes
    for key, group in groups:
        rows = frame[(frame[place] == list(key)).all(axis="columns")]
        baseline = rows.loc[rows["verdict"] == "baseline", "name"].item()
        (copies,) = set(rows["copies"])
        assert copies >= LEAST_COPIES
        assert set(group["copy"]) == set(range(copies))
        times = 2 * len(group[["copy", "round"]].drop_duplicates())
        assert group["timed"].value_counts().to_dict() == dict.fromkeys((baseline, "sa", TWIN), times)
        medians = 1000 * group.groupby("timed")["seconds"].median()
        for row in rows.itertuples():
            assert row.ms == pytest.approx(medians[row.name])
    assert "name" not in samples.columns


def test_ratios_are_geometric_means_over_copies(
    whole: tuple[Benchmark, tuple[Comparison, ...], list[Measurement]], frame: pd.DataFrame
) -> None:
    samples = pd.DataFrame(whole[0].samples)
    for (place, mode), group in samples.groupby(["place", "mode"]):
        times = group.pivot_table(index=["copy", "round", "turn"], columns="timed", values="seconds")
        rows = frame[(frame["place"] == place) & (frame["mode"] == mode)].set_index("name")
        baseline = rows.index[rows["verdict"] == "baseline"].item()
        logs = np.log(times["sa"] / times[baseline]).groupby("copy").median()
        assert rows.loc["sa", "ratio"] == pytest.approx(math.exp(logs.mean()))


class FakeClock:
    """A clock by which `sa` takes `factor` times as long as all others, with 1 % of noise."""

    def __init__(self, factor: float) -> None:
        self.factor, self.random = factor, np.random.default_rng(0)

    def __call__(self, act: Any, repeats: int) -> float:
        name, call = act.args
        call()
        return repeats * 1e-4 * (self.factor if name == "sa" else 1.0) * math.exp(self.random.normal(0, 0.01))


@pytest.mark.parametrize(
    ("factor", "margin", "verdict"),
    [(1.1, 5, "slower"), (0.9, 5, "faster"), (1.0, 5, "same"), (1.1, 20, "same"), (1.0, 0.01, "undecided")],
)
def test_verdicts_depend_on_the_ratio_and_the_margin(
    factor: float, margin: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "clock_of", lambda _: FakeClock(factor))
    benchmark, comparisons = started("bench.metrics=[speed]", "bench.modes=[forward]", f"bench.margin={margin}")
    copied, attended = benchmark.measure(comparisons[0])
    assert (copied.timing.verdict, attended.timing.verdict) == ("baseline", verdict)
    assert attended.timing.ratio == pytest.approx(factor, rel=0.02)


class Counted(nn.Module):
    """Counts its instances."""

    built: ClassVar[int] = 0

    def __init__(self, _: int) -> None:
        super().__init__()
        Counted.built += 1

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_every_timed_copy_is_rebuilt(kind: str) -> None:
    Counted.built = 0
    benchmark, comparisons = started("bench.metrics=[speed]", "bench.modes=[forward]")
    candidate = Candidate.of_class("counted", Counted, None)
    row = benchmark.measure(replace(one_of(comparisons, kind), candidates=(candidate,)))[1]
    points = 1 if kind == MODULE else 3
    assert Counted.built == (1 + row.timing.copies) * points  # one more for the first call


def test_counts_are_equal_in_every_mode(frame: pd.DataFrame) -> None:
    for _, group in frame.groupby(["kind", "place", "name"]):
        counts = group[["parameters", "buffers", "multiply_adds", "uncounted", "saved_mib"]]
        assert len(counts) == 2
        assert len(counts.drop_duplicates()) == 1


# Failures.


class Failing(nn.Module):
    """Raises an error when it is created, or when it is called."""

    def __init__(self, _: int, error: Exception, at_once: bool) -> None:
        super().__init__()
        self.error = error
        if at_once:
            raise error

    def forward(self, x: Tensor) -> Tensor:
        del x
        raise self.error


class Hungry(nn.Module):
    """Really allocates a pebibyte."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.empty(2**48, device=x.device).sum()


def failing(error: Exception, at_once: bool) -> Candidate:
    return Candidate.of_class("bad", partial(Failing, error=error, at_once=at_once), None)


def measured_with(candidate: Candidate, kind: str, *overrides: str) -> dict[tuple[str, str], str]:
    """Measures a comparison of a candidate with a working one; returns statuses by name and mode."""
    benchmark, comparisons = started(*overrides)
    comparison = one_of(comparisons, kind)
    comparison = replace(comparison, candidates=(candidate, *comparison.candidates))
    rows = benchmark.measure(comparison)
    for row in rows:
        assert math.isnan(row.timing.ms) == (row.status != "measured")
    return {(row.subject.name, row.setting.mode): row.status for row in rows}


CPU_ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize("at_once", [True, False], ids=["created", "called"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("no kernel\nat line 3"), "failed: no kernel"),
        (ValueError(), "failed: ValueError"),
        (TypeError("x" * 500), "failed: " + "x" * 200),
        (RuntimeError(CPU_ALLOCATOR), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), "out of memory"),
        (torch.OutOfMemoryError("Tried to allocate 2.00 GiB."), "out of memory"),
        (MemoryError(), "out of memory"),
    ],
)
def test_a_failed_module_is_a_row_with_the_reason_and_others_are_measured(
    error: Exception, status: str, at_once: bool
) -> None:
    assert measured_with(failing(error, at_once), MODULE, "bench.metrics=[speed]") == {
        (name, mode): status if name == "bad" else "measured"
        for name, mode in product(("copy", "bad", "sa"), (FORWARD, BACKWARD))
    }


@pytest.mark.parametrize("at_once", [True, False], ids=["created", "called"])
def test_a_failed_network_is_a_row_with_the_reason_and_others_are_measured(at_once: bool) -> None:
    assert measured_with(failing(RuntimeError("no kernel"), at_once), NETWORK, "bench.metrics=[speed]") == {
        (name, mode): "failed: no kernel" if name == "bad" else "measured"
        for name, mode in product(("none", "bad", "sa"), (FORWARD, STEP))
    }


def test_a_real_failure_to_allocate_memory_is_reported_as_out_of_memory() -> None:
    statuses = measured_with(Candidate.of_class("bad", Hungry, None), MODULE)
    assert {status for (name, _), status in statuses.items() if name == "bad"} == {"out of memory"}


class OnlyForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        del ctx, gradient
        raise RuntimeError("no backward")


class NoBackward(nn.Module):
    """Has no backward pass."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = OnlyForward.apply(x)
        return out


def test_a_module_that_fails_in_one_mode_is_measured_in_the_other() -> None:
    statuses = measured_with(Candidate.of_class("bad", NoBackward, None), MODULE)
    assert statuses == {
        ("copy", FORWARD): "measured", ("copy", BACKWARD): "measured",
        ("bad", FORWARD): "measured", ("bad", BACKWARD): "failed: no backward",
        ("sa", FORWARD): "measured", ("sa", BACKWARD): "measured",
    }  # fmt: skip


class NoInference(nn.Module):
    """Fails in inference mode."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("no inference")
        return x + 1


def test_a_failure_in_one_mode_does_not_affect_the_next_one() -> None:
    statuses = measured_with(Candidate.of_class("bad", NoInference, None), MODULE, "bench.metrics=[speed]")
    assert (statuses["bad", FORWARD], statuses["bad", BACKWARD]) == ("failed: no inference", "measured")


class HungryInTraining(nn.Module):
    """Fits where nothing is kept for backward, as what is large does on a GPU that is not."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x + 1


def test_a_module_that_cannot_be_trained_does_not_stop_the_benchmark() -> None:
    # Saved activations are measured in the forward mode, too, and do not fit into memory.
    statuses = measured_with(Candidate.of_class("bad", HungryInTraining, None), MODULE)
    assert statuses.pop(("bad", BACKWARD)) == "out of memory"
    statuses.pop(("bad", FORWARD))
    assert set(statuses) == set(product(("copy", "sa"), (FORWARD, BACKWARD)))
    assert set(statuses.values()) == {"measured"}


class Once(nn.Module):
    """Fails from the second call on."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("no second call")
        return x + 1


def test_a_failure_in_timing_is_attributed_to_the_right_subject() -> None:
    statuses = measured_with(Candidate.of_class("bad", Once, None), MODULE, "bench.metrics=[speed]")
    assert {status for (name, _), status in statuses.items() if name == "bad"} == {"failed: no second call"}
    assert {status for (name, _), status in statuses.items() if name != "bad"} == {"measured"}


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_a_batch_that_does_not_fit_gives_rows_out_of_memory(kind: str) -> None:
    benchmark, comparisons = started()
    rows = benchmark.measure(replace(one_of(comparisons, kind), batch=2**38))
    assert {row.status for row in rows} == {"out of memory"}
    assert len(rows) == 4


# Selected metrics and modes.

NEEDED = {
    "speed": {"ms", "ratio", "ratio_low", "ratio_high", "noise_low", "noise_high"},
    "memory": {"saved_mib", "peak_mib"},
    "complexity": {"parameters", "buffers", "multiply_adds", "uncounted", "moved_mib", "least_mib"},
    "energy": set(),  # on a CPU
}
NUMBERS = sorted(set.union(*NEEDED.values()) | {"joules"})


@pytest.mark.parametrize("metric", NEEDED)
def test_only_requested_metrics_are_measured(metric: str) -> None:
    benchmark, comparisons = started(f"bench.metrics=[{metric}]")
    frame = frame_of(benchmark.measure(comparisons[0]), {})
    assert set(frame["status"]) == {"measured"}
    assert {name for name in NUMBERS if frame[name].notna().any()} == NEEDED[metric]
    assert {name for name in NUMBERS if frame[name].notna().all()} == NEEDED[metric]
    assert bool(frame["copies"].min()) == (metric == "speed")
    assert bool(benchmark.samples) == (metric == "speed")


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ("[forward]", {MODULE: [FORWARD], NETWORK: [FORWARD]}),
        ("[backward]", {MODULE: [BACKWARD], NETWORK: []}),
        ("[step,backward]", {MODULE: [BACKWARD], NETWORK: [STEP]}),
    ],
)
def test_only_requested_modes_are_measured(modes: str, expected: dict[str, list[str]]) -> None:
    benchmark, comparisons = started(f"bench.modes={modes}", "bench.metrics=[energy]")
    rows = [row for comparison in comparisons for row in benchmark.measure(comparison)]
    for kind, names in expected.items():
        assert list(dict.fromkeys(row.setting.mode for row in rows if row.subject.kind == kind)) == names


class Phases(nn.Module):
    """Records whether gradients are computed, and whether it is in training mode."""

    recorded: ClassVar[set[tuple[bool, bool]]] = set()

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        self.recorded.add((torch.is_grad_enabled(), self.training))
        return x + 1


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_inference_is_in_evaluation_mode_and_training_with_gradients(kind: str) -> None:
    Phases.recorded.clear()
    measured_with(Candidate.of_class("bad", Phases, None), kind, "bench.metrics=[speed]")
    assert Phases.recorded == {(False, False), (True, True)}


@pytest.mark.parametrize(("joules", "expected"), [(7.0, 7.0), (None, math.nan)])
def test_energy_is_per_image_of_networks_in_the_last_mode(
    joules: float | None, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def counter(act: Callable[[], object], images: int, *_: object) -> float | None:
        act()
        batches.append(images)
        return joules

    monkeypatch.setattr(execute, "joules_per_image", counter)
    benchmark, comparisons = started("bench.metrics=[energy]")
    rows = benchmark.measure(one_of(comparisons, NETWORK))
    assert [(row.setting.mode, row.joules) for row in rows if not math.isnan(row.joules)] == (
        [] if joules is None else [(STEP, expected)] * 2
    )
    assert batches == [2] * 2
    assert all(math.isnan(row.joules) for row in benchmark.measure(one_of(comparisons, MODULE)))
    started("bench.metrics=[complexity]")[0].measure(one_of(comparisons, NETWORK))
    assert len(batches) == 2  # energy was not requested


@pytest.mark.parametrize(("seconds", "each"), [(0, 0.5), (2, 1.0), (60, 2.0)])
def test_the_time_for_energy_depends_on_bench_seconds(
    seconds: float, each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    durations: list[float] = []
    monkeypatch.setattr(execute, "joules_per_image", lambda _act, _images, _device, seconds: durations.append(seconds))
    benchmark, comparisons = started("bench.metrics=[energy]", f"bench.seconds={seconds}", "bench.modes=[step]")
    benchmark.measure(one_of(comparisons, NETWORK))  # two subjects
    assert durations == [each] * 2


def test_captured_calls_are_timed_as_replays_with_the_memory_of_eager_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[Callable[[], object]] = []

    def capture(act: Callable[[], object]) -> Callable[[], object]:
        replayed.append(act)
        return act

    monkeypatch.setattr(workloads, "captured", capture)
    benchmark, comparisons = started("bench.metrics=[memory]", "bench.modes=[step]")
    network = one_of(comparisons, NETWORK)
    eager = benchmark.measure(network)
    captured = benchmark.measure(replace(network, compile="captured"))
    assert not replayed
    assert [row.costs.peak_mib for row in captured] == [row.costs.peak_mib for row in eager]
    assert [row.costs.saved_mib for row in captured] == [row.costs.saved_mib for row in eager]
    timing, _ = started("bench.metrics=[speed]", "bench.modes=[step]")
    timed = timing.measure(replace(network, compile="captured"))
    assert {(row.setting.compile, row.status) for row in timed} == {("captured", "measured")}
    assert len(replayed) == sum(row.timing.copies for row in timed) * 3 // 2  # with the second copy of the baseline


def test_compiled_modules_have_all_costs_but_saved_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def record(module: nn.Module, **_: object) -> nn.Module:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", record)  # real compilation takes seconds
    benchmark, comparisons = started("bench.compile=[compiled]", "bench.metrics=[memory,complexity]")
    frame = frame_of(benchmark.measure(comparisons[0]), {})
    assert set(frame["status"]) == {"measured"}
    assert set(frame["compile"]) == {"compiled"}
    assert [type(module).__name__ for module in compiled] == ["ShuffleAttention"] * 2  # once per mode, without the copy
    assert frame["saved_mib"].isna().all()
    assert frame[["peak_mib", "multiply_adds", "moved_mib"]].notna().all(axis=None)


def test_memory_traffic_is_unknown_in_bf16() -> None:
    benchmark, comparisons = started("bench.metrics=[complexity]")
    frame = frame_of(benchmark.measure(replace(comparisons[0], precision="bf16")), {})
    assert frame[["moved_mib", "least_mib"]].isna().all(axis=None)
    assert frame[["multiply_adds", "uncounted"]].notna().all(axis=None)


# Complexity.


@pytest.fixture(scope="module")
def resnet50() -> tuple[Benchmark, tuple[Comparison, ...]]:
    return started(*RESNET50)


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["sa", "official"])
def test_the_multiply_adds_of_shuffle_attention_are_its_pooling_of_half_the_channels(
    resnet50: tuple[Benchmark, tuple[Comparison, ...]], stage: int, name: str
) -> None:
    benchmark, comparisons = resnet50
    comparison = next(comparison for comparison in comparisons if comparison.shape.stage == f"layer{stage}")
    counted, copied = benchmark.count(comparison, name), benchmark.count(comparison, "copy")
    assert counted is not None
    assert copied is not None
    elements = 256 * 2 ** (stage - 1) * (56 // 2 ** (stage - 1)) ** 2
    assert counted.multiply_adds == elements // 2
    assert counted.uncounted > elements
    assert (copied.multiply_adds, copied.uncounted) == (0, elements)


@pytest.mark.parametrize(("name", "added"), [("none", 0), ("sa", POOLED_BY_SA), ("official", POOLED_BY_SA)])
def test_the_multiply_adds_of_networks_are_correct(
    resnet50: tuple[Benchmark, tuple[Comparison, ...]], name: str, added: int
) -> None:
    counted = resnet50[0].count(one_of(resnet50[1], NETWORK), name)
    assert counted is not None
    assert counted.multiply_adds == PLAIN_RESNET50 + added


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_counts_are_equal_for_eager_and_compiled(resnet50: tuple[Benchmark, tuple[Comparison, ...]], kind: str) -> None:
    benchmark, comparisons = resnet50
    eager = one_of(comparisons, kind)
    compiled = replace(eager, compile="compiled")
    fresh, _ = started(*RESNET50)  # without the cached counts of the eager comparison
    for name in (eager.baseline, "sa", "official"):
        assert fresh.count(compiled, name) == benchmark.count(eager, name)


class ReadsValue(nn.Module):
    """Reads a value, which fails on the meta device."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean().item()


def test_a_module_that_cannot_be_counted_is_timed() -> None:
    benchmark, comparisons = started("bench.metrics=[speed,complexity]")
    candidate = Candidate.of_class("reads", ReadsValue, None)
    frame = frame_of(benchmark.measure(replace(comparisons[0], candidates=(candidate,))), {})
    rows = frame[frame["name"] == "reads"]
    assert set(rows["status"]) == {"measured"}
    assert rows["multiply_adds"].isna().all()
    assert rows["ms"].notna().all()
    assert (rows["parameters"] == 0).all()


@pytest.mark.parametrize(("side", "classes"), [(64, 10), (65, 1000)])
def test_networks_for_large_images_have_a_thousand_classes(side: int, classes: int) -> None:
    benchmark, comparisons = started(f"bench.resolution={side}")
    counted = benchmark.count(one_of(comparisons, NETWORK), "none")
    assert counted is not None
    assert counted.layers[-1].shape == (2, classes)


def test_the_current_activity_is_reported() -> None:
    config, plan = configured("bench.metrics=[speed]", "bench.modes=[forward]")
    texts: list[object] = []
    comparison = plan.comparisons[0]
    Benchmark(plan, config.bench, texts.append).measure(comparison)
    assert texts
    assert all(str(text).startswith(comparison.title) for text in texts)
    for name in ("copy", "sa"):
        assert any(str(text).endswith(name) for text in texts)
