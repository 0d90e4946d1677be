from __future__ import annotations

from collections.abc import Iterator

import pytest

from ablations.execution.launchers import turns
from ablations.execution.launchers.turns import Turns
from ablations.training.events import ERROR, Failed, Note, Progress, Step


def cell(name: str, count: int, closed: list[str]) -> Iterator[Progress]:
    try:
        for number in range(count):
            yield Note(f"{name}{number}")
        yield Failed(ERROR, name)
    finally:
        closed.append(name)


def test_cells_are_advanced_by_an_event_each_until_they_end() -> None:
    closed: list[str] = []
    cells = Turns()
    cells.begin("a", cell("a", 1, closed))
    cells.begin("b", cell("b", 2, closed))
    events = []
    while cells:
        events += [(key, getattr(event, "text", "end")) for key, event in cells.take()]
    assert events == [("a", "a0"), ("b", "b0"), ("a", "end"), ("b", "b1"), ("b", "end")]


def test_a_stopped_cell_is_closed_and_yields_no_further_events() -> None:
    closed: list[str] = []
    cells = Turns()
    for name in "ab":
        cells.begin(name, cell(name, 5, closed))
    list(cells.take())
    cells.stop("a")
    cells.stop("unknown")
    assert closed == ["a"]
    assert [key for key, _ in cells.take()] == ["b"]


def test_one_step_per_cell_and_half_second_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)

    def steps() -> Iterator[Progress]:
        for number in range(100):
            yield Step(number, 100)

    cells = Turns()
    cells.begin("a", steps())
    cells.begin("b", steps())
    reported = []
    for _ in range(12):
        reported += [(key, event.done) for key, event in cells.take() if isinstance(event, Step)]
        clock.now += 0.125
    assert reported == [(key, done) for done in (0, 4, 8) for key in "ab"]
