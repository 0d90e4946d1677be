"""The output of a study on terminals of several widths, in a pipe and in tmux: names and paths are not truncated."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from ablations.reporting.text.progress import WRITING_REPORT
from tests.builders.terminals import in_tmux, spawn
from tests.conftest import TINY, Command

STUDY = "groups-digits-resnet8"
NAMES = ("none", "groups=1, gate_bias=1.0, stages=last", "groups=4, gate_bias=1.0, stages=last")
TABLES = 2  # of variants, and of predictions
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # colours and font weights; codes that move the cursor do not match
# For each line of environment variables on standard input, prints the report of a stored study.
AGAIN = """
import os, sys
from ablations.analysis.load import load_study
from ablations.common.console import make_console
from ablations.reporting.publish import print_report
from ablations.reporting.report import make_report

report = make_report(load_study(*sys.argv[1:]), figures=())
print("ready", flush=True)
while True:
    os.environ.update(word.split("=") for word in input().split())
    print_report(make_console(), report)
    print("printed", flush=True)
"""


@dataclass(frozen=True)
class Stored:
    """A stored study: its options, folder, and the output of its run."""

    options: Sequence[str]
    folder: Path
    printed: str


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Stored:
    """A study of minimal size whose variants have long names."""
    folder = tmp_path_factory.mktemp("terminals") / "results"
    factors = "sweep.factors={attention: {groups: [1,4], gate_bias: [1.0], stages: [last]}}"
    options = [*TINY, factors, "train.epochs=1", "tracking.enabled=false", f"results_dir={folder}"]
    done = command("run", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return Stored(options, folder / STUDY, done.stdout)


@pytest.fixture(scope="module")
def printer(study: Stored) -> Iterator[pexpect.spawn[str]]:
    """A process in a terminal that prints the report of the study."""
    child = spawn([sys.executable, "-c", AGAIN, *study.options])
    child.expect_exact("ready\r\n")
    yield child
    child.close(force=True)


def printed(printer: pexpect.spawn[str], columns: int, environment: str = "") -> list[str]:
    """Returns the lines of the report on a terminal of this width."""
    printer.setwinsize(40, columns)
    printer.sendline(environment)
    printer.expect_exact("printed\r\n")
    return str(printer.before).split("\r\n")


def check_names(lines: Sequence[str]) -> None:
    """Checks that each table has the full name of each variant."""
    for name in NAMES:
        assert sum(f"│ {name} " in line for line in lines) >= TABLES
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize(
    "environment", ["NO_COLOR= TERM=xterm-256color", "NO_COLOR=1 TERM=xterm", "NO_COLOR= TERM=dumb"]
)
def test_names_and_values_are_not_truncated_on_terminals_of_any_width(
    printer: pexpect.spawn[str], columns: int, environment: str
) -> None:
    raw_lines = printed(printer, columns, environment)
    assert ("\x1b" in "".join(raw_lines)) == ("dumb" not in environment)
    assert not re.search(r"\x1b\[[34]", "".join(raw_lines))  # no colours
    lines = [ESCAPE.sub("", line) for line in raw_lines]
    assert "\x1b" not in "".join(lines)
    assert max(map(len, lines)) <= columns
    check_names(lines)
    parts = sum(line.startswith("┏") for line in lines)
    continued = sum("Continued below" in line for line in lines)
    assert (parts == TABLES) == (continued == 0) == (columns == 200)


def test_in_a_pipe_lines_are_not_truncated_and_have_no_escape_codes(study: Stored) -> None:
    lines = study.printed.splitlines()
    assert "\x1b" not in study.printed
    assert "\r" not in study.printed
    assert "━━━ " not in study.printed  # no progress bar
    check_names(lines)
    assert sum(line.startswith("┏") for line in lines) == TABLES
    assert f"Report:     {study.folder / 'report.md'}" in lines


def test_a_line_before_the_table_announces_the_report(study: Stored) -> None:
    lines = study.printed.splitlines()
    cells = [number for number, line in enumerate(lines) if line.startswith("[")]
    assert len(cells) == len(NAMES) * 2
    assert lines[cells[-1] + 1] == WRITING_REPORT
    assert lines[cells[-1] + 2].startswith("┏")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_in_tmux_names_and_paths_are_not_truncated(study: Stored, tmp_path: Path) -> None:
    figures = "figures=[all,-gates,-subfeatures,-cams,-classes,-confusion]"
    program = [sys.executable, "-m", "ablations.analyze", *study.options, figures]
    *lines, status = in_tmux(program, 80, tmp_path)
    assert status == "status 0"
    assert WRITING_REPORT in lines
    check_names(lines)
    places = "\n".join(lines[lines.index(next(line for line in lines if line.startswith("Report:"))) :])
    assert str(study.folder / "report.md") in places.replace("\n", "")
    assert str(study.folder / "figures" / "forest.png") in places.replace("\n", "")
