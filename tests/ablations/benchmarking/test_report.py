from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ablations.benchmarking import report
from ablations.benchmarking.report import (
    draw,
    frame_of,
    layers_frame,
    sections_of,
    text_of,
    tracked_of,
)
from ablations.measure.complexity import Complexity, count_operations
from ablations.measure.record import Costs, Measurement, Setting, Subject, Timing
from ablations.reporting.tables.sections import Section
from tests.builders.benchmarks import FORWARD, MODULES, NETWORKS, STEP, benchmark_rows, module, network

BACKWARD = Setting("forward+backward", "eager", "fp32", "contiguous")
COMPILED = Setting("forward", "compiled", "fp32", "contiguous")
ENVIRONMENT = {"cpu": "one", "gpu": "none", "torch": "2.11", "commit": "abc"}


def rows_of(*rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(rows)


def cells(section: Section, column: str) -> dict[str, str]:
    """Returns a column of a table by the names of its rows."""
    index = section.headers.index(column)
    return {row[section.names - 1]: row[index] for row in section.rows}


def timed(ms: float, ratio: float, low: float, high: float, verdict: str) -> dict[str, object]:
    subject = Subject("network", "sa", "resnet50", 8, 3, 224, 224)
    return Measurement(subject, FORWARD, "measured", Timing(20, ms, ratio, low, high, 0.99, 1.01, verdict)).to_row()


@pytest.mark.parametrize(
    ("row", "cell"),
    [
        (network("none"), "290 ms"),
        (network("sa"), "1.24 [1.22, 1.28]"),
        (timed(2.0, 0.875, 0.8, 0.95, "faster"), "0.88 [0.80, 0.95]"),
        (timed(2.0, 12.34, 9.876, 23.45, "slower"), "12.3 [9.88, 23.4]"),
        (timed(2.0, 1.01, 0.99, 1.03, "same"), "1.01 [0.99, 1.03] same"),
        (timed(2.0, 1.1, 0.9, 1.3, "undecided"), "1.10 [0.90, 1.30] undecided"),
        (timed(0.01234, 1.0, 1.0, 1.0, "baseline"), "0.0123 ms"),
        (network("sa", status="out of memory"), "out of memory"),
        (network("sa", status="failed: no kernel"), "failed: no kernel"),
        (Measurement(Subject("network", "sa", "resnet50", 8, 3, 224, 224), FORWARD, "measured").to_row(), "–"),
    ],
)
def test_a_cell_of_a_table_has_time_ratio_or_failure(row: dict[str, object], cell: str) -> None:
    (section,) = sections_of(rows_of(row), {})
    assert section.rows[0][section.headers.index("inference")] == cell


def test_each_setting_has_tables_of_networks_and_modules() -> None:
    sections = sections_of(benchmark_rows(), {})
    assert [section.title for section in sections] == [
        "resnet50, batch 8 of 3x224x224: eager, fp32, contiguous",
        "Modules, batch 8: eager, fp32, contiguous",
        "resnet50, batch 8 of 3x224x224: compiled, fp32, contiguous",
        "resnet50, batch 8 of 3x224x224: eager, bf16, contiguous",
    ]
    both = rows_of(*(network(name, place=place) for place in ("resnet18", "resnet50") for name in ("none", "sa")))
    assert [section.title.partition(",")[0] for section in sections_of(both, {})] == ["resnet18", "resnet50"]


def test_the_table_of_networks_has_costs_and_both_modes() -> None:
    section = sections_of(benchmark_rows(), {})[0]
    assert section.headers == (
        "network", "parameters", "multiply-adds M", "over no attention", "inference", "training step",
        "saved activations MiB", "peak MiB",
    )  # fmt: skip
    assert [row[0] for row in section.rows] == list(NETWORKS)
    assert section.rows[0] == ["none", "25,557,032", "4,089.18", "", "290 ms", "290 ms", "712.0", "1,024.0"]
    assert section.rows[1] == [
        "sa", "25,557,032", "4,091.94", "+0.067 %", "1.24 [1.22, 1.28]", "1.21 [1.19, 1.25]", "962.5", "1,291.0",
    ]  # fmt: skip
    assert cells(section, "over no attention")["sge"] == "0 %"
    twice = network("sa") | {"multiply_adds": 2 * 4_089_184_256}
    (other,) = sections_of(rows_of(network("none"), twice), {})
    assert cells(other, "over no attention") == {"none": "", "sa": "+100 %"}
    assert section.note == (
        "Noise floor (A/A): forward ±2.0 %, training step ±2.0 %. Peak: of training step."
    )  # fmt: skip


def test_missing_measurements_are_dashes() -> None:
    row = Measurement(Subject("network", "none", "resnet50", 8, 3, 224, 224), STEP, "measured").to_row()
    (section,) = sections_of(rows_of(row), {})
    assert section.rows == [["none", "–", "–", "", "–", "–", "–"]]
    assert section.note == "Noise floor (A/A): not measured. Peak: of training step."
    (section,) = sections_of(rows_of(network("sa")), {})  # without the plain network
    assert cells(section, "over no attention") == {"sa": "–"}


def test_a_mode_that_was_not_measured_has_no_column() -> None:
    (section,) = sections_of(rows_of(network("none"), network("sa")), {})
    assert "inference" in section.headers
    assert "training step" not in section.headers
    assert section.note.endswith("Peak: of inference.")


def test_energy_has_a_column_if_it_was_measured() -> None:
    rows = rows_of(network("none"), network("sa"))
    assert "J an image" not in sections_of(rows, {})[0].headers
    (section,) = sections_of(rows.assign(joules=[0.1234, math.nan]), {})
    assert cells(section, "J an image") == {"none": "0.123", "sa": "–"}


def test_the_table_of_modules_has_a_column_per_stage_and_a_row_per_mode_and_module() -> None:
    modules = [module(name, place, mode) for mode in (FORWARD, BACKWARD) for place in ("layer1", "layer2")
               for name in ("copy", "sa")]  # fmt: skip
    frame = rows_of(*modules)
    frame.loc[frame["name"] == "copy", "verdict"] = "baseline"
    frame.loc[(frame["name"] == "sa") & (frame["place"] == "layer2"), "status"] = "out of memory"
    (section,) = sections_of(frame, {})
    assert section.headers == ("mode", "module", "layer1 256x56x56", "layer2 512x28x28")
    assert section.names == 2
    assert section.rows == [
        ["forward", "copy", "4 ms", "2 ms"],
        ["forward", "sa", "2.10 [2.06, 2.14]", "out of memory"],
        ["forward+backward", "copy", "4 ms", "2 ms"],
        ["forward+backward", "sa", "2.10 [2.06, 2.14]", "out of memory"],
    ]
    assert section.note.startswith("Times relative to a copy of the feature map. Noise floor (A/A): forward ±1.0 %")


@pytest.mark.parametrize(
    ("low", "high", "floor"),
    [(0.985, 1.02, "2.0"), (0.9, 1.02, "10.0"), (1.03, 1.05, "5.0")],  # the larger deviation counts
)
def test_the_noise_floor_is_the_larger_deviation_from_one(low: float, high: float, floor: str) -> None:
    rows = rows_of(network("none"), network("sa")).assign(noise_low=low, noise_high=high)
    assert sections_of(rows, {})[0].note.startswith(f"Noise floor (A/A): forward ±{floor} %.")


class Gate(nn.Module):
    """A multiplication per element, and optionally an addition."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.5 + 1 if self.added else x * 0.5


def counted(gate: bool) -> Complexity:
    return count_operations(nn.Sequential(nn.Conv2d(10, 10, 1), Gate(gate)), torch.ones(2, 10, 1000, 100))


def test_each_backbone_has_a_table_of_uncounted_operations() -> None:
    networks = {"none": counted(False), "sa": counted(True)}
    sections = sections_of(rows_of(network("none")), {"resnet50": networks, "resnet18": {"sa": networks["sa"]}})
    assert [section.title for section in sections[1:]] == ["Operations not counted as multiply-adds in resnet50"]
    assert sections[1].rows == [["sa", "1.00", "addition 1.00"]]  # the plain network has the multiplication, too


def test_the_table_of_layers_has_the_operations_of_each_layer() -> None:
    frame = layers_frame({"resnet50": {"none": counted(False), "sa": counted(True)}})
    assert frame.columns.tolist() == [
        "backbone", "name", "path", "kind", "shape", "multiply_adds", "uncounted", "moved_mib",
    ]  # fmt: skip
    assert frame[["backbone", "name", "path", "kind", "shape"]].to_numpy().tolist() == [
        ["resnet50", name, path, kind, "2x10x1000x100"]
        for name in ("none", "sa")
        for path, kind in (("0", "Conv2d"), ("1", "Gate"))
    ]
    assert frame["multiply_adds"].tolist() == [11e6, 0, 11e6, 0]
    assert frame["uncounted"].tolist() == [0, 1e6, 0, 2e6]
    assert frame["moved_mib"].iloc[1] == pytest.approx(2 * 4 * 2e6 / 2**20)


def test_a_frame_has_every_field_and_the_environment() -> None:
    subject = Subject("network", "sa", "resnet50", 8, 3, 224, 224)
    row = Measurement(subject, FORWARD, "measured", Timing(copies=7, ms=1.5), Costs(buffers=7.0), joules=0.5)
    frame = frame_of([row, row], ENVIRONMENT)
    assert frame.columns.tolist() == [*row.to_row(), *ENVIRONMENT]
    assert len(frame) == 2
    for name, value in (row.to_row() | ENVIRONMENT).items():
        assert frame[name].iloc[1] == value or math.isnan(frame[name].iloc[1])


def test_a_csv_round_trip_keeps_columns_and_statuses() -> None:
    frame = frame_of(
        [Measurement(Subject("module", "sa", "layer1", 8, 3, 4, 5), FORWARD, 'failed: a,"b"')], ENVIRONMENT
    )
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)), keep_default_na=True, na_values=[""])
    assert read.columns.tolist() == frame.columns.tolist()
    assert read["status"].tolist() == ['failed: a,"b"']


# MLflow.


def test_mlflow_has_a_run_per_subject_and_setting_networks_first() -> None:
    runs = tracked_of(benchmark_rows())
    assert [run.name for run in runs[:2]] == ["none resnet50", "sa resnet50"]
    kinds = [run.params["kind"] for run in runs]
    assert kinds == sorted(kinds, reverse=True)
    compiled, bf16 = 2, 1  # networks in two other settings
    assert len(runs) == len(NETWORKS) + compiled + bf16 + 4 * len(MODULES)
    assert len({tuple(run.params.items()) for run in runs}) == len(runs)


def test_a_run_in_mlflow_has_its_setting_and_the_metrics_of_all_modes() -> None:
    (run,) = [
        run for run in tracked_of(benchmark_rows())
        if run.name == "sa resnet50" and (run.params["compile"], run.params["precision"]) == ("eager", "fp32")
    ]  # fmt: skip
    assert run.params == {
        "kind": "network", "place": "resnet50", "batch": "8", "compile": "eager", "precision": "fp32",
        "layout": "contiguous", "name": "sa", "shape": "3x224x224",
    }  # fmt: skip
    assert run.metrics == {
        "forward_ms": pytest.approx(290 * 1.24), "forward_ratio": 1.24,
        "training_step_ms": pytest.approx(290 * 1.21), "training_step_ratio": 1.21,
        "training_step_peak_mib": 1291.0, "saved_mib": 962.5,
        "multiply_adds": 4_091_943_936.0, "parameters": 25_557_032.0,
    }  # fmt: skip
    assert all(type(value) is float for value in run.metrics.values())


def test_missing_measurements_are_not_metrics() -> None:
    failed = network("sa", STEP, status="out of memory") | {"saved_mib": math.nan, "peak_mib": math.nan}
    (run,) = tracked_of(rows_of(failed))
    assert run.metrics == {"parameters": 25_557_032.0}


@pytest.mark.parametrize("name", ["groups=4", "w/o GN", "resnet20, sa", "norm=group:2, gate=tanh1", "2+3", "a (b) %"])
def test_keys_in_mlflow_are_valid_for_any_name_of_a_variant(name: str) -> None:
    row = module("sa", "layer1", BACKWARD) | {"name": name}
    for run in tracked_of(rows_of(row, network("sa", STEP) | {"name": name})):
        assert run.params["name"] == name
        assert run.metrics
        # MLflow's documented rule: letters, digits, spaces and these characters; no slash at the beginning.
        for key in (*run.metrics, *run.params):
            assert re.fullmatch(r"[\w.:-][\w /.:-]*", key, re.ASCII), key


# Figures and text.


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (benchmark_rows(), ["overhead", "memory", "roofline"]),
        (benchmark_rows().query("kind == 'network'"), ["overhead", "memory"]),
        (benchmark_rows().query("kind == 'module'"), ["roofline"]),
        (benchmark_rows().assign(ms=math.nan, ratio=math.nan), ["memory"]),
    ],
    ids=["all", "networks", "modules", "no times"],
)
def test_figures_with_data_are_drawn(rows: pd.DataFrame, expected: list[str], tmp_path: Path) -> None:
    written = draw(rows, tmp_path / "figures", "here.")
    assert written == [tmp_path / "figures" / f"{name}.{end}" for name in expected for end in ("png", "pdf", "csv")]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(written)
    assert all(path.stat().st_size for path in written)


@pytest.mark.parametrize(
    "rows",
    [
        benchmark_rows().assign(status="out of memory"),
        benchmark_rows().query("kind == 'network' and name == 'none'"),
        benchmark_rows().query("kind == 'module' and name == 'copy'"),
        benchmark_rows().iloc[:0],
    ],
    ids=["failed", "plain", "copy", "nothing"],
)
def test_without_data_no_file_is_written(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert draw(rows, tmp_path / "figures", "here.") == []
    assert list(tmp_path.rglob("*.*")) == []


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The caption of each figure, recorded without drawing."""
    recorded: dict[str, str] = {}

    def record(name: str) -> Callable[[pd.DataFrame, str], Figure]:
        return lambda _, caption: Figure(label=recorded.setdefault(name, caption))

    for name, (compute, _, title) in report.FIGURES.items():
        monkeypatch.setitem(report.FIGURES, name, (compute, record(name), title))
    monkeypatch.setattr(report.style, "save", lambda *_: [])
    return recorded


def test_a_caption_has_subject_protocol_and_machine(captions: dict[str, str], tmp_path: Path) -> None:
    rows = benchmark_rows()
    rows.loc[rows["kind"] == "module", "batch"] = 4
    rows.loc[(rows["kind"] == "network") & (rows["name"] == "sa"), "copies"] = 31
    draw(rows, tmp_path, "One CPU; torch 2.")
    setting, how = (
        "eager, fp32, contiguous; batch",
        "rebuilt copies, interleaved timing, means with 95 % CI. One CPU; torch 2.",
    )
    assert captions["overhead"] == f"Overhead of attention in a network. {setting} 8; n = 20 to 31 {how}"
    assert captions["roofline"] == f"Bandwidth of modules relative to a copy. {setting} 4; n = 20 {how}"
    assert captions["memory"].startswith(f"Memory of attention. {setting} 8")
    assert captions["memory"].endswith(" One CPU; torch 2.")


def test_a_caption_has_the_setting_of_the_figure(captions: dict[str, str], tmp_path: Path) -> None:
    # If the first setting could not be timed, the next one is drawn.
    untimed = [network(name) | {"ms": math.nan, "ratio": math.nan} for name in ("none", "sa")]
    timed = [network(name, COMPILED) for name in ("none", "sa")]
    draw(rows_of(*untimed, *timed), tmp_path, "here.")
    assert " compiled, fp32, contiguous; " in captions["overhead"]


def test_the_caption_of_a_figure_without_times_has_no_number_of_copies(
    captions: dict[str, str], tmp_path: Path
) -> None:
    rows = rows_of(network("none", STEP), network("sa", STEP)).assign(copies=0, ms=math.nan, ratio=math.nan)
    draw(rows, tmp_path, "here.")
    assert list(captions) == ["memory"]
    assert "n = 0 rounds" not in captions["memory"]


def test_the_report_has_tables_notes_figures_command_and_environment(tmp_path: Path) -> None:
    table = Section("A title", "A note of it.", ("network", "time"), [["a|b", "1 ms"]])
    figures = [tmp_path / "figures" / f"overhead.{end}" for end in ("png", "pdf", "csv")]
    text = text_of(
        "bench-x",
        "python -m ablations.bench",
        [table],
        figures,
        ENVIRONMENT,
        ["How it was done.", "Left out: y."],
        tmp_path,
    )
    for part in (
        "# bench-x\n\nHow it was done.\n\nLeft out: y.\n\n",
        "## A title\n\n| network | time |\n| --- | --- |\n| a\\|b | 1 ms |\n\nA note of it.\n\n",
        "![overhead](figures/overhead.png)\n",
        "```\npython -m ablations.bench\n```\n",
        "| cpu | one |\n",
        "| commit | abc |\n",
    ):
        assert part in text
    assert text.count("![") == 1
    assert text.endswith("|\n")
