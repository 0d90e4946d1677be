"""Rows of measurements, stored immediately, and the page and the CSV generated from them.

A row has either a number or the reason why there is none.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

ROWS, CSV, PAGE = "rows.jsonl", "ratios.csv", "page.md"
Key = tuple[int, str, str, str, str]


class Value(NamedTuple):
    """A number from `n` repetitions, with its 95 % confidence interval, if any."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """A quantity of a subject.

    Args:
        call: 1, 2 or 3.
        part: name of the part of the call.
        subject, baseline: the subject, and the baseline of a ratio; `baseline` is empty for other quantities.
        quantity: name of the quantity, with its unit.
        value, low, high: the number, and its 95 % confidence interval; None if not measured.
        n: number of repetitions behind the mean or median; 0 if not measured.
        protocol: the measurement protocol.
        reason: the reason why there is no number; empty if there is one.
        device, versions: the device and the software versions.
    """

    call: int
    part: str
    subject: str
    baseline: str
    quantity: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    protocol: str
    reason: str
    device: str = ""
    versions: str = ""

    def __post_init__(self) -> None:
        if (self.value is None) == (not self.reason):
            raise ValueError(f"{self.subject}, {self.quantity}: must have a number or a reason, and not both")

    @property
    def key(self) -> Key:
        """The key that identifies the row."""
        return self.call, self.part, self.subject, self.baseline, self.quantity


def append(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)


def read(path: Path) -> list[Row]:
    """Returns the rows of a file in the order in which their keys first appear; for each key, the last row."""
    if not path.exists():
        return []
    rows = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({row.key: row for row in rows}.values())


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes all rows; quantities that were not measured have empty numbers and a reason in a separate column."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), "n": row.n or ""})


def page_of(rows: Sequence[Row], failures: Sequence[str]) -> str:
    """Renders failures and all rows as Markdown, with a table for each part."""
    lines = ["# Measurements on a GPU", "", "Produced by `python -m tests.gpu.run`; see tests/gpu/README.md.", ""]
    machines = dict.fromkeys(f"{row.device}; {row.versions}" for row in rows if row.value is not None)
    lines += [*(f"Measured on: {machine}." for machine in machines), ""] if machines else ["Nothing was measured.", ""]
    if failures:
        lines += ["## Failed", "", *(f"- {failure}" for failure in failures), ""]
    for call, part in dict.fromkeys((row.call, row.part) for row in rows):
        own = [row for row in rows if (row.call, row.part) == (call, part)]
        lines += [f"## Call {call}: {part}", ""]
        lines += ["| subject | relative to | quantity | value | n |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {' | '.join((row.subject, row.baseline or '–', row.quantity, *_cells(row)))} |" for row in own]
        protocols = dict.fromkeys(row.protocol for row in own if row.protocol)
        lines += ["", *(f"Protocol: {protocol}" for protocol in protocols), ""]
    return "\n".join(lines).rstrip() + "\n"


def _cells(row: Row) -> tuple[str, str]:
    if row.value is None:
        return row.reason.replace("|", "\\|"), ""
    interval = "" if row.low is None or row.high is None else f" [{row.low:.4g}, {row.high:.4g}]"
    return f"{row.value:.4g}{interval}", str(row.n)
