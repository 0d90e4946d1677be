from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from ablations.execution.launchers.room import Trial, Usage, find_room
from ablations.training.events import Probe

SIZES = st.floats(1.0, 1e6)


def trial(own: float, peak: float, device: float = 0.0, free: float = math.inf) -> Trial:
    return Trial(Probe(1.0, 1.0, 1.0, peak, 1), Usage(own, device, free))


@given(SIZES, SIZES, SIZES, SIZES)
def test_the_largest_cell_determines_how_many_fit(own: float, peak: float, growth: float, free: float) -> None:
    largest = max(peak, growth)
    room = find_room(free, [trial(own, peak)], largest, gpus=0)
    each = max(0.0, own - peak) + largest
    assert room.fitting >= 1
    assert room.fitting == 1 or room.fitting * each <= free
    assert (room.fitting + 1) * each > 0.85 * free  # and not far fewer than fit
    assert room.each >= largest


@given(SIZES, st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=5))
def test_larger_variants_never_increase_how_many_fit(free: float, sizes: list[tuple[float, float]]) -> None:
    tried = [trial(own, peak) for own, peak in sizes]
    largest = max(peak for _, peak in sizes)
    some = find_room(free, tried[:1], tried[0].peak, gpus=0)
    assert find_room(free, tried, largest, gpus=0).fitting <= some.fitting


def test_on_a_gpu_the_peak_refers_to_gpu_memory() -> None:
    tried = [trial(own=1000.0, peak=200.0, device=700.0, free=9300.0)]
    room = find_room(1e6, tried, 500.0, gpus=1)
    assert (room.fitting, room.each, room.of) == (9, 1000.0, "GPU memory")
    room = find_room(3000.0, tried, 500.0, gpus=1)
    assert (room.fitting, room.each, room.of) == (2, 1000.0, "memory")


def test_an_unknown_peak_is_included_in_the_memory_of_the_process() -> None:
    unknown = Trial("no step could be taken", Usage(300.0))
    assert unknown.peak == trial(300.0, math.nan).peak == 0.0
    assert find_room(3000.0, [unknown], 0.0, gpus=0).fitting == 9


def test_cells_are_distributed_over_gpus_and_share_main_memory() -> None:
    tried = [trial(300.0, 100.0, device=600.0, free=2400.0)]
    room = find_room(1e6, tried, 500.0, gpus=1)
    assert (room.fitting, room.of) == (2, "GPU memory")
    room = find_room(1e6, tried, 500.0, gpus=3)
    assert (room.fitting, room.of) == (6, "GPU memory")
    room = find_room(1000.0, tried, 500.0, gpus=3)
    assert (room.fitting, room.of) == (3, "memory")
