from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from ablations.common.console import make_console
from ablations.execution.progress import Display, describe_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.4, "89 s"), (100, "2 min"), (5300, "88 min"), (7860, "2 h 11 min")]
)
def test_a_duration_has_readable_units(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text


def show(*, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, width=110, force_terminal=terminal, highlight=False)
    with Display(console, total=12, finished=9) as display:
        display.start_cell("groups=2 r0")
        display.step("groups=2 r0", 1, 4)
        display.epoch("groups=2 r0", 55.5)
        display.step("groups=2 r0", 2, 4)
        display.finish_cell("groups=2 r0", 61.25, 3.21)
        display.start_cell("groups=4 r0")
        display.end_cell("groups=4 r0", "failed: ValueError: no [such] thing")
    return file.getvalue()


def test_without_a_terminal_every_cell_is_one_plain_line() -> None:
    lines = show(terminal=False).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[10/12] groups=2 r0")
    assert "top-1 61.2 %" in lines[0]
    assert lines[0].endswith(" left")
    assert "failed: ValueError: no [such] thing" in lines[1]
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_the_study_and_the_cell_are_shown_live() -> None:
    text = show(terminal=True)
    assert "\x1b" in text
    assert "top-1 55.5 %" in text
    assert "9/12" in text


def test_parallel_cells_are_shown_separately_and_end_in_any_order() -> None:
    file = io.StringIO()
    console = Console(file=file, width=110, force_terminal=True, highlight=False)
    with Display(console, total=4, finished=0) as display:

        def displayed(name: str, top1: float) -> dict[str, str]:
            """The display of each cell after an epoch."""
            before = len(file.getvalue())
            display.epoch(name, top1)
            last = re.sub(r"\x1b\[\d*(;\d+)*[A-Za-z]", "", file.getvalue()[before:]).rpartition("study ")[2]
            return {cell: note.strip() for cell, note in re.findall(r"^(\S+ r\d) .* \d+/\S+ (.*)$", last, re.MULTILINE)}

        for name in ("none r0", "groups=1 r0"):
            display.start_cell(name)
        display.step("none r0", 1, 2)
        display.epoch("groups=1 r0", 22.5)
        assert displayed("none r0", 11.5) == {"none r0": "top-1 11.5 %", "groups=1 r0": "top-1 22.5 %"}
        display.start_cell("groups=1 r0")  # restarted on another worker
        assert displayed("none r0", 11.5) == {"none r0": "top-1 11.5 %", "groups=1 r0": "starting"}
        display.finish_cell("groups=1 r0", 33.5, 1.0)
        assert displayed("none r0", 11.5) == {"none r0": "top-1 11.5 %"}
        display.end_cell("none r0", "diverged: the loss is nan")
        display.start_cell("groups=2 r0")
        assert displayed("groups=2 r0", 44.5) == {"groups=2 r0": "top-1 44.5 %"}
    text = file.getvalue()
    for line in ("[1/4] groups=1 r0", "[2/4] none r0", "diverged: the loss is nan"):
        assert line in text


@pytest.mark.parametrize("terminal", [False, True])
def test_added_cells_are_counted_and_their_reason_is_shown(terminal: bool) -> None:
    file = io.StringIO()
    console = Console(file=file, width=110, force_terminal=terminal, highlight=False)
    with Display(console, total=9, finished=8) as display:
        display.start_cell("none r3")
        display.finish_cell("none r3", 50.0, 1.0)
        display.set_total(12)
        display.notify("Look at 4 replicates: [0] of 1 decided.")
        assert display.total == 12
        display.start_cell("none r4")
        display.step("none r4", 1, 2)
        display.finish_cell("none r4", 50.0, 1.0)
    text = file.getvalue()
    assert "[9/9] none r3" in text
    assert "Look at 4 replicates: [0] of 1 decided.\n" in text
    assert "[10/12] none r4" in text
    assert " left" in text[text.index("[10/12]") :] or terminal
    assert ("9/12" in text) == terminal


@pytest.mark.parametrize("name", ["[bold]x[/] r0", "a[/] r0", "study :x: r0"])
def test_names_are_shown_literally(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    console = make_console()
    with Display(console, total=2, finished=0) as display:
        display.start_cell(name)
        display.end_cell(name, "[b]failed[/b] :x:")
    assert f" {name} " in file.getvalue()
    assert "[b]failed[/b] :x:" in file.getvalue()
    live = io.StringIO()
    with Display(Console(file=live, width=110, force_terminal=True, emoji=False), total=2, finished=0) as display:
        display.start_cell(name)
        display.epoch(name, 55.5)
    assert name in live.getvalue()
