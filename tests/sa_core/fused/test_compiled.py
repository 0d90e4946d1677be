"""Checks the kernels' machine code without a GPU: memory traffic, load widths, occupancy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.benchmarks.kernel_table import (
    CASES,
    PATH,
    UNMEASURED,
    Case,
    Row,
    compiled_rows,
    markdown,
    measured_shares,
)  # fmt: skip
from tests.gpu.results import Row as GpuRow
from tests.gpu.results import write_csv
from tests.sa_core.fused.compiled import Launch

MODES = ("forward", "backward")


class Counted(Launch):
    """A launch with a given number of registers."""

    @property
    def registers(self) -> int:
        return int(self.ptx)


def launch_of(warps: int, registers: int, shared: int = 0) -> Launch:
    return Counted("kernel", 1, {}, "bf16", "", str(registers), warps, shared, "")


@pytest.mark.parametrize(
    ("warps", "registers", "shared", "resident"),
    [
        (8, 32, 0, 64),  # the maximum
        (8, 64, 0, 32),
        (16, 106, 0, 16),  # one block fits
        (8, 126, 0, 16),
        (4, 96, 0, 20),
        (1, 16, 0, 32),  # 32 blocks at most
        (4, 32, 100 * 1024, 8),  # two blocks by shared memory
    ],
)
def test_occupancy_equals_that_of_nvidias_calculator(warps: int, registers: int, shared: int, resident: int) -> None:
    assert launch_of(warps, registers, shared).occupancy == resident


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    pytest.importorskip("triton", reason="needs triton")
    return compiled_rows([Case(1024, 14, False), Case(1024, 14, True, joined=True)])


def test_compiled_kernels_have_the_expected_traffic_and_do_not_spill(rows: list[Row]) -> None:
    assert [(row.mode, row.moved, row.least) for row in rows] == [
        ("forward", 2, 2),
        ("backward", 3, 3),
        ("forward", 4, 3),
        ("backward", 7, 5),
    ]
    for row in rows:
        assert row.spilled == 0
        assert set(row.widths) <= {2, 4, 8, 16}
        assert 0 < row.registers <= 255
        assert row.warps <= row.occupancy <= 64


def test_the_committed_table_has_all_rows_and_matches_the_kernels(rows: list[Row]) -> None:
    committed = [line for line in PATH.read_text().splitlines() if re.match(r"\| \d", line)]
    places = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in committed]
    assert places == [(str(case), mode) for case in CASES for mode in MODES]
    kernels_and_maps = {place: line.split("|")[3:5] for place, line in zip(places, committed, strict=True)}
    now = [line for line in markdown(rows, {}, "").splitlines() if re.match(r"\| \d", line)]
    for row, line in zip(rows, now, strict=True):
        assert kernels_and_maps[row.case, row.mode] == line.split("|")[3:5]


def test_speed_that_was_not_measured_has_no_number(rows: list[Row]) -> None:
    shares = {(rows[0].case, rows[0].mode): 81.4}
    lines = [line for line in markdown(rows, shares, "").splitlines() if re.match(r"\| \d", line)]
    cells = [line.split("|")[-2].strip() for line in lines]
    assert cells == ["81", *[UNMEASURED] * 3]


def test_shares_are_read_from_the_csv_of_a_gpu(tmp_path: Path) -> None:
    case = str(CASES[0])
    rows = [
        row_of_gpu(case, f"{mode}, {how}, % of copy bandwidth", value)
        for mode, how, value in (
            ("forward", "captured", 80.5),
            ("forward", "eager", 20.0),
            ("backward", "captured", None),
        )
    ]
    write_csv(rows, tmp_path / "ratios.csv")
    assert measured_shares(tmp_path / "ratios.csv") == {(case, "forward"): 80.5}


def row_of_gpu(subject: str, quantity: str, value: float | None) -> GpuRow:
    reason = "" if value is not None else "not measured: needs a GPU"
    return GpuRow(1, "kernels", subject, "copy", quantity, value, None, None, 6, "", reason)
