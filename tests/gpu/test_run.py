"""Tests the GPU script on a CPU with minimal sizes, and its handling of failed parts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.builders.gpu_parts import broken
from tests.gpu import kernels, networks, run, suite
from tests.gpu.measuring import NEEDS_GPU, Options, Tasks
from tests.gpu.measuring import do as do_tasks
from tests.gpu.results import CSV, PAGE, ROWS, Row, page_of, read
from tests.gpu.run import CALLS, Part, main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """Makes all three calls in sequence."""
    folder = tmp_path_factory.mktemp("gpu")
    common = ["--device", "cpu", "--tiny", "--out", str(folder), "--data", str(folder / "data")]
    return folder, [main([str(call), *common]) for call in CALLS]


def test_all_calls_run_to_their_end_without_a_gpu(finished: tuple[Path, list[int]]) -> None:
    folder, codes = finished
    rows = read(folder / ROWS)
    assert codes == [0, 0, 0], [row for row in rows if row.reason.startswith("failed")]
    assert {(row.call, row.part) for row in rows} == {(call, part.name) for call in CALLS for part in CALLS[call]}


def test_the_page_and_the_csv_have_every_row_and_the_csv_a_number_or_a_reason(finished: tuple[Path, list[int]]) -> None:
    folder, _ = finished
    rows, page = read(folder / ROWS), (folder / PAGE).read_text()
    with (folder / CSV).open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows)
    for row, line in zip(written, rows, strict=True):
        assert bool(row["value"]) != bool(row["reason"])
        assert bool(row["value"]) == bool(row["n"])
        assert row["device"]
        assert "torch" in row["versions"]
        assert f"| {line.subject} | {line.baseline or '–'} | {line.quantity} |" in page


def test_on_a_cpu_quantities_that_need_a_gpu_are_empty(finished: tuple[Path, list[int]]) -> None:
    captured = [row for row in read(finished[0] / ROWS) if "captured" in row.quantity]
    assert captured
    assert {row.reason for row in captured} == {NEEDS_GPU}


def test_a_later_call_resumes_the_study_and_trains_nothing_again(finished: tuple[Path, list[int]]) -> None:
    rows = [row for row in read(finished[0] / ROWS) if "digits" in row.subject]
    values = {(row.call, row.quantity): row.value for row in rows if row.value is not None}
    assert values[1, suite.CELLS] == 6
    assert values[2, suite.AGAIN] == 0
    assert values[3, suite.RUNS] >= 6


def test_kernels_match_the_formula_and_are_deterministic(finished: tuple[Path, list[int]]) -> None:
    rows = [row for row in read(finished[0] / ROWS) if row.part == "kernels"]
    assert all(row.value is not None and row.value <= 1 for row in rows if row.quantity == kernels.ERROR)
    assert all(row.value == 1 for row in rows if row.quantity == kernels.REPEATED)


def test_no_call_takes_more_than_ten_minutes() -> None:
    for parts in CALLS.values():
        assert sum(part.limit for part in parts) + len(parts) * run._GRACE <= run.LONGEST


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize(
    "listed", [kernels.tasks, networks.large, networks.small, suite.tests, suite.hourly, suite.bench, suite.cifar]
)
def test_rows_of_a_part_have_unique_keys(listed: Tasks, tiny: bool, tmp_path: Path) -> None:
    tasks = listed(Options("cuda", tiny, tmp_path, tmp_path))
    keys = [row.key for task in tasks for row in task.rows(1, "part", {}, "not measured")]
    assert keys
    assert len(set(keys)) == len(keys)


def test_a_failed_task_affects_only_its_own_rows(tmp_path: Path) -> None:
    options = Options("cpu", True, tmp_path, tmp_path)
    assert do_tasks(1, "part", broken(options), options) == 1
    values = [(row.subject, row.quantity, row.value, row.reason) for row in read(tmp_path / ROWS)]
    assert values == [
        ("first", "size", None, "failed: ValueError: no such kernel"),
        ("second", "size", None, "not measured: no data"),
        ("third", "size", 3.0, ""),
        ("third", "weight", None, NEEDS_GPU),
    ]


def test_tasks_that_a_part_did_not_reach_have_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (
        Part("dead", "tests.builders.gpu_parts:dying", 100),
        Part("slow", "tests.builders.gpu_parts:broken", 0.1),
        Part("after", "tests.builders.gpu_parts:broken", 100),
    )
    monkeypatch.setitem(CALLS, 1, parts)
    monkeypatch.setattr(run, "_GRACE", 0.0)
    failures = run.make_call(1, Options("cpu", False, tmp_path, tmp_path))
    rows = {(row.part, row.subject, row.quantity): row for row in read(tmp_path / ROWS)}
    assert rows["dead", "quick", "size"].value == 1
    assert rows["dead", "dying", "size"].reason == "not measured: the part ended with exit status 3"
    assert rows["slow", "third", "size"].reason == "not measured: the part ran out of time (0.1 s)"
    assert rows["after", "third", "size"].value == 3
    assert len(failures) == 2
    page = (tmp_path / PAGE).read_text()
    assert "no such kernel" in page.partition("## Call")[0]


@pytest.mark.parametrize(("value", "reason"), [(None, ""), (1.0, "not measured")])
def test_a_row_has_a_number_or_a_reason(value: float | None, reason: str) -> None:
    with pytest.raises(ValueError, match="not both"):
        Row(1, "part", "subject", "", "size", value, None, None, 1, "", reason)


def test_an_empty_page_states_that_nothing_was_measured() -> None:
    row = Row(1, "part", "subject", "", "size", None, None, None, 0, "", "not measured: a | in it")
    page = page_of([row], [])
    assert "Nothing was measured." in page
    assert "a \\| in it" in page
