"""The verb `bench`: in real processes, and in this process through the same command line."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from mlflow import MlflowClient

from ablations import bench, cli
from ablations.benchmarking import report
from ablations.benchmarking.execute import Benchmark
from ablations.benchmarking.plan import Comparison
from ablations.common.parts import TRACEBACKS
from ablations.config import BenchConfig
from ablations.measure.record import Measurement, Setting, Subject
from ablations.storage.lock import claimed
from tests.builders.markdown import unescaped
from tests.conftest import Command
from tests.wording import refusal, worded

NAME = "bench-rivals-resnet8-cpu"
TINY = (
    "device=cpu", "sweep.factors.attention=[sa]", "bench=quick", "bench.seconds=0", "bench.module_batch=2",
    "bench.network_batch=2",
)  # fmt: skip
UNTRACKED = "tracking.enabled=false"
FIGURES = {f"{name}.{end}" for name in ("overhead", "memory", "roofline") for end in ("png", "pdf", "csv")}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Reduces the time of the tests from minutes to seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # on small feature maps and a busy machine, threads mostly wait for each other
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for child processes
        yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Finished:
    """A finished benchmark: its results folder, output and exit status."""

    results: Path
    printed: str
    errors: str
    status: int

    @property
    def folder(self) -> Path:
        return self.results / NAME


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Finished:
    """A complete benchmark of minimal size."""
    results = tmp_path_factory.mktemp("bench")
    process = command("bench", *TINY, f"results_dir={results}")
    return Finished(results, process.stdout, process.stderr, process.returncode)


def call(*overrides: str) -> int:
    """Runs a benchmark in this process, which saves seconds of imports."""
    return cli.main("bench", bench.PURPOSE, bench.bench, [*TINY, UNTRACKED, *overrides], ("sweep=rivals",))


def test_a_benchmark_ends_in_tables_rows_figures_and_a_report(done: Finished) -> None:
    assert (done.status, done.errors) == (0, "")
    files = {path.name for path in done.folder.iterdir() if not path.name.startswith(".")}
    assert files == {"figures", "measurements.csv", "samples.csv", "layers.csv", "report.md"}
    assert {path.name for path in (done.folder / "figures").iterdir()} == FIGURES
    lines = done.printed.splitlines()
    assert lines[0] == f"{NAME}: 4 comparisons"
    first = next(number for number, line in enumerate(lines) if line.startswith("modules on"))
    assert lines[first : first + 4] == [
        *(f"modules on layer{stage}, eager, fp32, contiguous" for stage in (1, 2, 3)),
        "resnet8, eager, fp32, contiguous",
    ]
    for start in (
        "│ none     │     75,290 │",
        "│ sa       │     75,374 │",
        "│ official │     75,374 │",
        "│ forward          │ copy     │",
        "│ forward+backward │ official │",
        f"Report:     {done.folder / 'report.md'}",
        f"Rows:       {done.folder / 'measurements.csv'}",
    ):
        assert any(line.startswith(start) for line in lines)


def test_every_measurement_is_a_row_with_the_machine(done: Finished) -> None:
    rows = pd.read_csv(done.folder / "measurements.csv", keep_default_na=False, na_values=[""])
    empty = Measurement(Subject("", "", "", 0, 0, 0, 0), Setting("", "", "", ""), "").to_row()
    assert rows.columns.tolist()[: len(empty)] == list(empty)
    assert {"cpu", "gpu", "torch", "device", "threads"} <= set(rows.columns[len(empty) :])
    assert set(rows["device"]) == {"cpu"}
    assert set(rows["threads"]) == {1}
    assert set(rows["clock"]) == {"thread clock"}
    assert len(rows) == 3 * 2 * 3 + 2 * 3  # stages, modes and modules; modes and networks
    assert set(rows["status"]) == {"measured"}
    samples = pd.read_csv(done.folder / "samples.csv")
    copies = rows.groupby(["place", "mode"])["copies"].first()
    assert samples.groupby(["place", "mode"])["copy"].nunique().to_dict() == copies.to_dict()
    turns = len(samples[["place", "mode", "copy", "round", "turn"]].drop_duplicates())
    assert len(samples) == turns * (3 + 1)  # three subjects, and a second copy of the baseline


def test_the_report_has_command_figures_and_environment(done: Finished) -> None:
    text = unescaped(done.folder / "report.md")
    assert f"# {NAME}\n" in text
    assert f"python -m ablations.bench {' '.join(TINY[:1])} 'sweep.factors.attention=[sa]' " in text
    for name in ("overhead", "memory", "roofline"):
        assert f"![{name}](figures/{name}.png)" in text
    assert "| threads | 1 |" in text
    assert worded("bench.left_out", network="resnet8") in text


def test_mlflow_has_the_metrics_and_the_files(done: Finished) -> None:
    uri = f"sqlite:///{done.results / 'mlflow.db'}"
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(NAME).experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    named = {run.info.run_name: run for run in runs}
    assert set(named) == {"report"} | {f"{name} resnet8" for name in ("none", "sa", "official")} | {
        f"{name} layer{stage}" for name in ("copy", "sa", "official") for stage in (1, 2, 3)
    }
    rows = pd.read_csv(done.folder / "measurements.csv", keep_default_na=False, na_values=[""])
    row = rows[(rows["kind"] == "network") & (rows["name"] == "sa") & (rows["mode"] == "training step")].iloc[0]
    metrics = named["sa resnet8"].data.metrics
    assert metrics["training_step_ratio"] == pytest.approx(row["ratio"])
    assert metrics["multiply_adds"] == row["multiply_adds"]
    stored = {artifact.path for artifact in client.list_artifacts(named["report"].info.run_id)}
    assert stored == {"figures", "measurements.csv", "samples.csv", "layers.csv", "report.md"}
    assert f"mlflow ui --backend-store-uri {uri}\n" in done.printed
    assert "Not in MLflow" not in done.printed


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        (
            "bench",
            ["bench.metrics=[speed,beauty]"],
            "error: " + refusal("bench.metrics=beauty", "options.unknown", valid="speed, memory"),
        ),
        ("bench", ["bench.precision=[fp64]"], "error: " + refusal("bench.precision=fp64", "options.unknown")),
        ("bench", ["bench.resolution=3"], "error: " + refusal("bench.resolution=3", "bench.resolution", least=8)),
        (
            "bench",
            ["bench.also=[nowhere:Nothing]"],
            "error: " + refusal("bench.also=nowhere:Nothing", "bench.unimported", then="No module"),
        ),
        (
            "bench",
            ["sweep=groups", "sweep.factors.attention.groups=[3]"],
            "error: sweep.factors.attention.groups=3: at",
        ),
        ("run", ["bench.seconds=1"], "error: bench.seconds=1: is an option of `python -m ablations.bench`, not of"),
        ("analyze", ["bench=quick"], "error: bench=quick: is an option of `python -m ablations.bench`, not of"),
    ],
)
def test_invalid_input_is_one_line_and_status_2(
    verb: str, arguments: list[str], message: str, tmp_path: Path, command: Command
) -> None:
    process = command(verb, "device=cpu", f"results_dir={tmp_path}", *arguments)
    assert (process.returncode, process.stdout) == (2, "")
    assert re.match(message, process.stderr)
    assert len(process.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bench.secs=1", "error: " + refusal("bench.secs", "options.no_such", what="option")),
        (
            "results_dir=/dev/null/x",
            "error: " + refusal("results_dir=/dev/null/x", "files.unwritable", cause="Not a directory"),
        ),
        ("device=cuda", "error: " + refusal("device=cuda", "machine.no_cuda")),
        (
            "bench=fast",
            "error: " + refusal("bench=fast", "options.no_such", what="bench", valid="full, quick, standard"),
        ),
    ],
)
def test_invalid_input_of_the_machine_or_a_group_is_one_line_and_status_2(
    override: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert call(override) == cli.USAGE_STATUS
    printed = capsys.readouterr()
    assert re.match(message, printed.err)
    assert len(printed.err.splitlines()) == 1


def test_the_help_of_bench_lists_its_options_and_its_sweep(command: Command) -> None:
    process = command("bench", "--help")
    assert (process.returncode, process.stderr) == (0, "")
    lines = [line.strip() for line in process.stdout.splitlines()]
    assert any(line.startswith("sweep=rivals") and "one of:" in line for line in lines)  # the default of bench
    assert any(line.startswith("bench ") or line.startswith("bench=") for line in lines)
    for declared in fields(BenchConfig):
        assert any(line.startswith(f"bench.{declared.name}=") for line in lines)


@pytest.mark.parametrize("name", report.FIGURES)
def test_a_figure_that_fails_is_the_only_missing_part(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> Figure:
        raise ValueError("planted")

    compute, _, title = report.FIGURES[name]
    monkeypatch.setitem(report.FIGURES, name, (compute, fail, title))
    assert call(f"results_dir={tmp_path}") == 1
    line = worded("not_made.part", name=f"figure {name}", reason="ValueError: planted")
    assert line in capsys.readouterr().out
    folder = tmp_path / NAME
    assert line in (folder / "report.md").read_text(encoding="utf-8")
    assert (folder / TRACEBACKS).exists()
    drawn = {path.name for path in (folder / "figures").iterdir()}
    assert drawn == {file for file in FIGURES if not file.startswith(name)}


@pytest.mark.parametrize("part", ["_networks", "_modules", "_uncounted", "layers_frame", "_protocol", "tracked_of"])
def test_a_part_of_the_report_that_fails_does_not_stop_the_benchmark(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(report, part, fail)
    metrics = "[speed,complexity]" if part == "_protocol" else "[complexity]"  # timing takes seconds
    assert call(f"results_dir={tmp_path}", f"bench.metrics={metrics}", "tracking.enabled=true") == 1
    printed = capsys.readouterr().out
    assert "ValueError: planted" in printed
    assert ("mlflow ui" in printed) == (part != "tracked_of")
    assert {"report.md", "measurements.csv"} <= {path.name for path in (tmp_path / NAME).iterdir()}


@pytest.mark.parametrize("verb", ["run", "analyze"])
def test_the_help_of_other_verbs_does_not_list_options_of_bench(verb: str, command: Command) -> None:
    process = command(verb, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert "bench" not in process.stdout


def test_an_interrupted_benchmark_reports_its_measurements_so_far(tmp_path: Path) -> None:
    arguments = [sys.executable, "-u", "-m", "ablations.bench", *TINY, "bench.seconds=1", "bench.metrics=[speed]",
                 UNTRACKED, f"results_dir={tmp_path}"]  # fmt: skip
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Shells start background jobs with SIGINT ignored, and the tests may run in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("modules on layer2"):
                process.send_signal(signal.SIGINT)
                break
        printed, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (cli.INTERRUPTED_STATUS, "")
    assert worded("bench.interrupted", file=tmp_path / NAME / "measurements.csv") in printed
    rows = pd.read_csv(tmp_path / NAME / "measurements.csv", keep_default_na=False, na_values=[""])
    assert rows[["place", "mode", "name"]].to_numpy().tolist() == [
        ["layer1", mode, name] for mode in ("forward", "forward+backward") for name in ("copy", "sa", "official")
    ]
    assert set(rows["status"]) == {"measured"}
    assert (tmp_path / NAME / "report.md").exists()


def test_an_interrupt_before_anything_is_measured_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> list[Measurement]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Benchmark, "measure", interrupted)
    assert call(f"results_dir={tmp_path}") == cli.INTERRUPTED_STATUS
    assert not (tmp_path / NAME / "measurements.csv").exists()
    assert "measurements.csv" not in capsys.readouterr().out


def test_a_benchmark_in_which_every_row_failed_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("bench.of=[modules]", f"bench.module_batch={2**38}", f"results_dir={tmp_path}") == 1
    rows = pd.read_csv(tmp_path / NAME / "measurements.csv")
    assert set(rows["status"]) == {"out of memory"}
    assert "out of memory" in capsys.readouterr().out
    assert list((tmp_path / NAME / "figures").iterdir()) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["bench.of=[modules]", "bench.modes=[step]"],
        ["bench.of=[networks]", "bench.modes=[backward]"],
        ["bench.of=[networks]", "bench.compile=[compiled]"],  # compile_networks is false by default
    ],
)
def test_a_benchmark_without_anything_to_measure_fails(overrides: list[str], tmp_path: Path) -> None:
    assert call(*overrides, f"results_dir={tmp_path}") in (1, cli.USAGE_STATUS)


def test_a_second_process_on_the_same_benchmark_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with claimed(tmp_path / NAME, ""):
        assert call(f"results_dir={tmp_path}") == cli.USAGE_STATUS
    assert "is locked by another process" in capsys.readouterr().err
    assert not (tmp_path / NAME / "measurements.csv").exists()


def test_an_invalid_tracking_uri_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*TINY, "bench.of=[networks]", "bench.metrics=[complexity]", "bench.modes=[forward]", "bench.also=[]",
                 "tracking.uri=sqlite:////nowhere/mlflow.db", f"results_dir={tmp_path}"]  # fmt: skip
    assert cli.main("bench", bench.PURPOSE, bench.bench, arguments, ("sweep=rivals",)) == cli.USAGE_STATUS
    error = refusal("tracking.uri=sqlite:////nowhere/mlflow.db", "database.no_folder", folder="/nowhere")
    assert re.match(f"error: {error}", capsys.readouterr().err)
    assert list(tmp_path.rglob("*.csv")) == []


@pytest.fixture(scope="module")
def counted(done: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a benchmark that only counts operations of modules, after a complete one of the same name."""
    results = tmp_path_factory.mktemp("again")
    shutil.copytree(done.folder, results / NAME)
    assert call("bench.of=[modules]", "bench.metrics=[complexity]", f"results_dir={results}") == 0
    return results / NAME


def test_a_benchmark_removes_the_files_of_an_earlier_one_of_the_same_name(counted: Path) -> None:
    rows = pd.read_csv(counted / "measurements.csv")
    assert set(rows["kind"]) == {"module"}
    assert rows["ms"].isna().all()
    # Every file in the folder is attributed to this benchmark, and sent to MLflow.
    assert list((counted / "figures").iterdir()) == []
    assert not (counted / "layers.csv").exists()


def test_without_times_there_is_no_unreadable_file_of_samples(counted: Path) -> None:
    samples = counted / "samples.csv"
    assert not samples.exists() or len(pd.read_csv(samples)) == 0


def test_only_requested_metrics_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("bench.of=[networks]", "bench.modes=[forward]", "bench.metrics=[speed]", "bench.also=[]")
    assert call(*options, f"results_dir={tmp_path}") == 0
    assert "not counted as multiply-adds" not in capsys.readouterr().out
    assert not (tmp_path / NAME / "layers.csv").exists()


def test_the_name_of_the_folder_contains_all_backbones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def record(_: Benchmark, comparison: Comparison) -> list[Measurement]:
        measured.append(comparison.model["name"])
        return []

    monkeypatch.setattr(Benchmark, "measure", record)
    factors = "sweep.factors={model: [resnet8, resnet20], attention: [none, sa]}"
    arguments = ["device=cpu", "bench=quick", UNTRACKED, "sweep=backbones", factors, f"results_dir={tmp_path}"]
    cli.main("bench", bench.PURPOSE, bench.bench, arguments, ("sweep=rivals",))
    assert list(dict.fromkeys(measured)) == ["resnet8", "resnet20"]
    assert capsys.readouterr().out.startswith("bench-backbones-resnet8-resnet20-cpu: 8 comparisons\n")
    assert (tmp_path / "bench-backbones-resnet8-resnet20-cpu").is_dir()
