from __future__ import annotations

import gc
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
    """Lets the tests take seconds instead of minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(
        1
    )  # on tiny maps, on a machine that does other work, threads do little but wait for each other
    gc.freeze()  # what was imported, which each collection would look through for nothing
    yield
    gc.unfreeze()
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
    """All of the smallest benchmark."""
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


def test_what_can_be_measured_is(frame: pd.DataFrame) -> None:
    assert (frame[["ms", "ratio", "ratio_low", "ratio_high", "noise_low", "noise_high", "peak_mib"]] > 0).all(axis=None)
    assert (frame["ratio_low"] <= frame["ratio"]).all()
    assert (frame["ratio"] <= frame["ratio_high"]).all()
    assert frame["joules"].isna().all()  # a CPU does not say
    for column in ("parameters", "buffers", "multiply_adds", "uncounted", "moved_mib", "least_mib", "saved_mib"):
        assert frame[column].notna().all()


def test_baselines_are_said_to_be_and_have_the_ratio_one(frame: pd.DataFrame) -> None:
    baseline = frame["name"].isin(["copy", "none"])
    assert (frame["verdict"] == "baseline").equals(baseline)
    assert (frame.loc[baseline, ["ratio", "ratio_low", "ratio_high"]] == 1).all(axis=None)


def test_parameters_and_multiply_adds_are_those_of_the_networks(frame: pd.DataFrame) -> None:
    networks = frame[(frame["kind"] == NETWORK) & (frame["mode"] == STEP)].set_index("name")
    assert networks["parameters"].to_dict() == {
        name: sum(one.numel() for one in create_model("resnet8", attention=name, **knobs).parameters())
        for name, knobs in (("none", {}), ("sa", {"groups": 4}))
    }
    pooled = sum(channels * side**2 / 2 for channels, side in ((16, 32), (32, 16), (64, 8)))
    assert networks.loc["sa", "multiply_adds"] - networks.loc["none", "multiply_adds"] == pooled
    norms = sum(2 * channels + 1 for channels in (16, 16, 16, 32, 32, 64, 64))  # buffers
    assert networks["buffers"].to_dict() == {"none": norms, "sa": norms}


def test_memory_is_more_with_attention(frame: pd.DataFrame) -> None:
    for (_, _, mode), own in frame.groupby(["kind", "place", "mode"]):
        taken = own.set_index("name")[["saved_mib", "peak_mib"]]
        baseline = "copy" if "copy" in taken.index else "none"
        assert taken.loc["sa", "saved_mib"] > taken.loc[baseline, "saved_mib"]
        if mode != FORWARD:
            assert taken.loc["sa", "peak_mib"] > taken.loc[baseline, "peak_mib"]
    peaks = frame.set_index(["name", "mode"])["peak_mib"]
    for name in ("none", "sa"):
        assert peaks[name, STEP].item() > 1.5 * peaks[name, FORWARD].max()
    copies = frame[(frame["name"] == "copy") & (frame["place"] == "layer1")]
    elements = 2 * 16 * 32 * 32
    assert (copies["least_mib"] == 2 * 4 * elements / MIB).all()  # read once, written once
    assert (copies["moved_mib"] == copies["least_mib"]).all()


def test_samples_are_all_times_that_were_taken(
    whole: tuple[Benchmark, tuple[Comparison, ...], list[Measurement]], frame: pd.DataFrame
) -> None:
    samples = pd.DataFrame(whole[0].samples)
    place = ["kind", "place", "batch", "channels", "height", "width", "mode", "compile", "precision", "layout"]
    taken = samples.groupby(place, sort=False)
    assert len(taken) == 4 * 2  # comparisons and modes
    for key, own in taken:
        rows = frame[(frame[place] == list(key)).all(axis="columns")]
        baseline = rows.loc[rows["verdict"] == "baseline", "name"].item()
        (copies,) = set(rows["copies"])
        assert copies >= LEAST_COPIES
        assert set(own["copy"]) == set(range(copies))
        times = 2 * len(own[["copy", "round"]].drop_duplicates())
        assert own["timed"].value_counts().to_dict() == dict.fromkeys((baseline, "sa", TWIN), times)
        medians = 1000 * own.groupby("timed")["seconds"].median()
        for row in rows.itertuples():
            assert row.ms == pytest.approx(medians[row.name])
    assert "name" not in samples.columns


def test_ratios_are_those_of_copies(
    whole: tuple[Benchmark, tuple[Comparison, ...], list[Measurement]], frame: pd.DataFrame
) -> None:
    samples = pd.DataFrame(whole[0].samples)
    for (place, mode), own in samples.groupby(["place", "mode"]):
        times = own.pivot_table(index=["copy", "round", "turn"], columns="timed", values="seconds")
        rows = frame[(frame["place"] == place) & (frame["mode"] == mode)].set_index("name")
        baseline = rows.index[rows["verdict"] == "baseline"].item()
        logs = np.log(times["sa"] / times[baseline]).groupby("copy").median()
        assert rows.loc["sa", "ratio"] == pytest.approx(math.exp(logs.mean()))


class Tenth:
    """A clock by which `sa` takes so much longer than the others, give or take a percent."""

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
def test_verdicts_are_by_copies_and_the_margin(
    factor: float, margin: float, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "clock_of", lambda _: Tenth(factor))
    benchmark, comparisons = started("bench.metrics=[speed]", "bench.modes=[forward]", f"bench.margin={margin}")
    copied, attended = benchmark.measure(comparisons[0])
    assert (copied.timing.verdict, attended.timing.verdict) == ("baseline", verdict)
    assert attended.timing.ratio == pytest.approx(factor, rel=0.02)


class Counted(nn.Module):
    """Notes how many of it were built."""

    built: ClassVar[int] = 0

    def __init__(self, _: int) -> None:
        super().__init__()
        Counted.built += 1

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_every_copy_that_is_timed_is_built_anew(kind: str) -> None:
    Counted.built = 0
    benchmark, comparisons = started("bench.metrics=[speed]", "bench.modes=[forward]")
    candidate = Candidate.of_class("counted", Counted, None)
    row = benchmark.measure(replace(one_of(comparisons, kind), candidates=(candidate,)))[1]
    places = 1 if kind == MODULE else 3
    assert Counted.built == (1 + row.timing.copies) * places  # one more is called for the first time


def test_counts_need_no_clock_and_are_equal_in_every_mode(frame: pd.DataFrame) -> None:
    for _, own in frame.groupby(["kind", "place", "name"]):
        counts = own[["parameters", "buffers", "multiply_adds", "uncounted", "saved_mib"]]
        assert len(counts) == 2
        assert len(counts.drop_duplicates()) == 1


# What fails.


class Failing(nn.Module):
    """Raises what it is told to: as it is made, or as it is called."""

    def __init__(self, _: int, error: Exception, at_once: bool) -> None:
        super().__init__()
        self.error = error
        if at_once:
            raise error

    def forward(self, x: Tensor) -> Tensor:
        del x
        raise self.error


class Hungry(nn.Module):
    """Asks for a pebibyte, really."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.empty(2**48, device=x.device).sum()


def failing(error: Exception, at_once: bool) -> Candidate:
    return Candidate.of_class("bad", partial(Failing, error=error, at_once=at_once), None)


def measured_with(candidate: Candidate, kind: str, *overrides: str) -> dict[tuple[str, str], str]:
    """Measures a comparison in which a candidate stands before one that works; returns states by name and mode."""
    benchmark, comparisons = started(*overrides)
    comparison = one_of(comparisons, kind)
    comparison = replace(comparison, candidates=(candidate, *comparison.candidates))
    rows = benchmark.measure(comparison)
    for row in rows:
        assert math.isnan(row.timing.ms) == (row.status != "measured")
    return {(row.subject.name, row.setting.mode): row.status for row in rows}


CPU_ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize("at_once", [True, False], ids=["made", "called"])
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
def test_what_fails_is_a_row_that_says_why_and_the_others_are_measured(
    error: Exception, status: str, at_once: bool
) -> None:
    assert measured_with(failing(error, at_once), MODULE, "bench.metrics=[speed]") == {
        (name, mode): status if name == "bad" else "measured"
        for name, mode in product(("copy", "bad", "sa"), (FORWARD, BACKWARD))
    }


@pytest.mark.parametrize("at_once", [True, False], ids=["made", "called"])
def test_a_network_that_fails_is_a_row_that_says_why_and_the_others_are_measured(at_once: bool) -> None:
    assert measured_with(failing(RuntimeError("no kernel"), at_once), NETWORK, "bench.metrics=[speed]") == {
        (name, mode): "failed: no kernel" if name == "bad" else "measured"
        for name, mode in product(("none", "bad", "sa"), (FORWARD, STEP))
    }


def test_a_module_that_really_runs_out_of_memory_says_so() -> None:
    found = measured_with(Candidate.of_class("bad", Hungry, None), MODULE)
    assert {status for (name, _), status in found.items() if name == "bad"} == {"out of memory"}


class OnlyForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        del ctx, gradient
        raise RuntimeError("no way back")


class NoWayBack(nn.Module):
    """Runs forward alone."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = OnlyForward.apply(x)
        return out


def test_what_fails_in_one_mode_is_measured_in_the_other() -> None:
    found = measured_with(Candidate.of_class("bad", NoWayBack, None), MODULE)
    assert found == {
        ("copy", FORWARD): "measured", ("copy", BACKWARD): "measured",
        ("bad", FORWARD): "measured", ("bad", BACKWARD): "failed: no way back",
        ("sa", FORWARD): "measured", ("sa", BACKWARD): "measured",
    }  # fmt: skip


class NoInference(nn.Module):
    """Runs only where gradients are computed."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("no inference")
        return x + 1


def test_a_failure_of_an_earlier_mode_is_forgotten() -> None:
    found = measured_with(Candidate.of_class("bad", NoInference, None), MODULE, "bench.metrics=[speed]")
    assert (found["bad", FORWARD], found["bad", BACKWARD]) == ("failed: no inference", "measured")


class HungryInTraining(nn.Module):
    """Fits where nothing is kept for backward, as what is large does on a GPU that is not."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return x + 1


def test_what_can_be_timed_but_not_trained_stops_nothing() -> None:
    # What it keeps for backward is counted in the forward mode, too, and does not fit.
    found = measured_with(Candidate.of_class("bad", HungryInTraining, None), MODULE)
    assert found.pop(("bad", BACKWARD)) == "out of memory"
    found.pop(("bad", FORWARD))
    assert set(found) == set(product(("copy", "sa"), (FORWARD, BACKWARD)))
    assert set(found.values()) == {"measured"}


class Once(nn.Module):
    """Works the first time."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 1:
            raise RuntimeError("no second call")
        return x + 1


def test_what_fails_later_is_not_said_of_the_others() -> None:
    found = measured_with(Candidate.of_class("bad", Once, None), MODULE, "bench.metrics=[speed]")
    assert {status for (name, _), status in found.items() if name == "bad"} == {"failed: no second call"}
    assert {status for (name, _), status in found.items() if name != "bad"} == {"measured"}


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_a_batch_that_does_not_fit_is_rows_that_say_so(kind: str) -> None:
    benchmark, comparisons = started()
    rows = benchmark.measure(replace(one_of(comparisons, kind), batch=2**38))
    assert {row.status for row in rows} == {"out of memory"}
    assert len(rows) == 4


# What is left out.

NEEDED = {
    "speed": {"ms", "ratio", "ratio_low", "ratio_high", "noise_low", "noise_high"},
    "memory": {"saved_mib", "peak_mib"},
    "complexity": {"parameters", "buffers", "multiply_adds", "uncounted", "moved_mib", "least_mib"},
    "energy": set(),  # of a CPU
}
NUMBERS = sorted(set.union(*NEEDED.values()) | {"joules"})


@pytest.mark.parametrize("metric", NEEDED)
def test_a_metric_that_is_not_asked_for_is_not_measured(metric: str) -> None:
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
def test_a_mode_that_is_not_asked_for_is_not_measured(modes: str, expected: dict[str, list[str]]) -> None:
    benchmark, comparisons = started(f"bench.modes={modes}", "bench.metrics=[energy]")
    rows = [row for comparison in comparisons for row in benchmark.measure(comparison)]
    for kind, own in expected.items():
        assert list(dict.fromkeys(row.setting.mode for row in rows if row.subject.kind == kind)) == own


class Phases(nn.Module):
    """Notes whether it is training, by whether gradients are computed."""

    seen: ClassVar[set[tuple[bool, bool]]] = set()

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add((torch.is_grad_enabled(), self.training))
        return x + 1


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_what_infers_is_evaluated_and_what_has_gradients_is_trained(kind: str) -> None:
    Phases.seen.clear()
    measured_with(Candidate.of_class("bad", Phases, None), kind, "bench.metrics=[speed]")
    assert Phases.seen == {(False, False), (True, True)}


@pytest.mark.parametrize(("joules", "expected"), [(7.0, 7.0), (None, math.nan)])
def test_energy_is_that_of_an_image_of_networks_in_the_last_mode(
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
    assert len(batches) == 2  # not asked for, not counted


@pytest.mark.parametrize(("seconds", "each"), [(0, 0.5), (2, 1.0), (60, 2.0)])
def test_energy_takes_about_as_long_as_timing(seconds: float, each: float, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    monkeypatch.setattr(execute, "joules_per_image", lambda _act, _images, _device, spent: taken.append(spent))
    benchmark, comparisons = started("bench.metrics=[energy]", f"bench.seconds={seconds}", "bench.modes=[step]")
    benchmark.measure(one_of(comparisons, NETWORK))  # of two subjects
    assert taken == [each] * 2


def test_captured_calls_are_timed_as_replays_and_weighed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[Callable[[], object]] = []

    def capture(act: Callable[[], object]) -> Callable[[], object]:
        replayed.append(act)
        return act

    monkeypatch.setattr(workloads, "captured", capture)
    benchmark, comparisons = started("bench.metrics=[memory]", "bench.modes=[step]")
    network = one_of(comparisons, NETWORK)
    eager = benchmark.measure(network)
    weighed = benchmark.measure(replace(network, compile="captured"))
    assert not replayed
    assert [row.costs.peak_mib for row in weighed] == [row.costs.peak_mib for row in eager]
    assert [row.costs.saved_mib for row in weighed] == [row.costs.saved_mib for row in eager]
    timing, _ = started("bench.metrics=[speed]", "bench.modes=[step]")
    timed = timing.measure(replace(network, compile="captured"))
    assert {(row.setting.compile, row.status) for row in timed} == {("captured", "measured")}
    assert len(replayed) == sum(row.timing.copies for row in timed) * 3 // 2  # with the second copy of the baseline


def test_of_compiled_modules_all_is_known_but_what_they_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[nn.Module] = []

    def note(module: nn.Module, **_: object) -> nn.Module:
        handed.append(module)
        return module

    monkeypatch.setattr(torch, "compile", note)  # seconds of compiling, for nothing here
    benchmark, comparisons = started("bench.compile=[compiled]", "bench.metrics=[memory,complexity]")
    frame = frame_of(benchmark.measure(comparisons[0]), {})
    assert set(frame["status"]) == {"measured"}
    assert set(frame["compile"]) == {"compiled"}
    assert [type(module).__name__ for module in handed] == ["ShuffleAttention"] * 2  # in each mode; not the copy
    assert frame["saved_mib"].isna().all()
    assert frame[["peak_mib", "multiply_adds", "moved_mib"]].notna().all(axis=None)


def test_what_bf16_moves_is_not_what_fp32_does() -> None:
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
def test_shuffle_attention_s_multiply_adds_are_its_pooling_of_half_of_the_map(
    resnet50: tuple[Benchmark, tuple[Comparison, ...]], stage: int, name: str
) -> None:
    benchmark, comparisons = resnet50
    comparison = next(one for one in comparisons if one.shape.stage == f"layer{stage}")
    counted, copied = benchmark.count(comparison, name), benchmark.count(comparison, "copy")
    assert counted is not None
    assert copied is not None
    elements = 256 * 2 ** (stage - 1) * (56 // 2 ** (stage - 1)) ** 2
    assert counted.multiply_adds == elements // 2
    assert counted.uncounted > elements
    assert (copied.multiply_adds, copied.uncounted) == (0, elements)


@pytest.mark.parametrize(("name", "added"), [("none", 0), ("sa", POOLED_BY_SA), ("official", POOLED_BY_SA)])
def test_a_network_s_multiply_adds_are_known(
    resnet50: tuple[Benchmark, tuple[Comparison, ...]], name: str, added: int
) -> None:
    counted = resnet50[0].count(one_of(resnet50[1], NETWORK), name)
    assert counted is not None
    assert counted.multiply_adds == PLAIN_RESNET50 + added


@pytest.mark.parametrize("kind", [MODULE, NETWORK])
def test_counts_are_the_same_for_eager_and_compiled(
    resnet50: tuple[Benchmark, tuple[Comparison, ...]], kind: str
) -> None:
    benchmark, comparisons = resnet50
    eager = one_of(comparisons, kind)
    compiled = replace(eager, compile="compiled")
    fresh, _ = started(*RESNET50)  # that nothing is remembered of the eager one
    for name in (eager.baseline, "sa", "official"):
        assert fresh.count(compiled, name) == benchmark.count(eager, name)


class InterimAnalyses(nn.Module):
    """Looks at a value, which a tensor without values cannot show."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean().item()


def test_what_cannot_be_counted_is_measured_all_the_same() -> None:
    benchmark, comparisons = started("bench.metrics=[speed,complexity]")
    interims = Candidate.of_class("looks", InterimAnalyses, None)
    frame = frame_of(benchmark.measure(replace(comparisons[0], candidates=(interims,))), {})
    own = frame[frame["name"] == "looks"]
    assert set(own["status"]) == {"measured"}
    assert own["multiply_adds"].isna().all()
    assert own["ms"].notna().all()
    assert (own["parameters"] == 0).all()


@pytest.mark.parametrize(("side", "classes"), [(64, 10), (65, 1000)])
def test_large_images_are_those_of_a_thousand_classes(side: int, classes: int) -> None:
    benchmark, comparisons = started(f"bench.resolution={side}")
    counted = benchmark.count(one_of(comparisons, NETWORK), "none")
    assert counted is not None
    assert counted.layers[-1].shape == (2, classes)


def test_what_is_being_done_is_said() -> None:
    config, plan = configured("bench.metrics=[speed]", "bench.modes=[forward]")
    said: list[object] = []
    comparison = plan.comparisons[0]
    Benchmark(plan, config.bench, said.append).measure(comparison)
    assert said
    assert all(str(text).startswith(comparison.title) for text in said)
    for name in ("copy", "sa"):
        assert any(str(text).endswith(name) for text in said)
