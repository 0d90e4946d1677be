"""Rows of benchmarks, and a check for cut or overlapping texts in their figures."""

from __future__ import annotations

from itertools import combinations, product

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablations.measure.record import Costs, Measurement, Setting, Subject, Timing

STAGES = {"layer1": (256, 56), "layer2": (512, 28), "layer3": (1024, 14), "layer4": (2048, 7)}
FORWARD = Setting("forward", "eager", "fp32", "contiguous")
STEP = Setting("training step", "eager", "fp32", "contiguous")
PLAIN = 4_089_184_256
# Per network: additional multiply-adds, relative time of forward and of a training step, MiB saved, MiB at peak.
NETWORKS = {
    "none": (0, 1.0, 1.0, 712.0, 1024.0),
    "sa": (2_759_680, 1.24, 1.21, 962.5, 1291.0),
    "official": (2_759_680, 1.51, 1.62, 1198.0, 1560.0),
    "se": (5_271_552, 1.11, 1.09, 874.0, 1214.0),
    "eca": (2_759_850, 1.09, 1.07, 873.0, 1181.0),
    "cbam": (12_900_000, 1.58, 1.71, 1251.0, 1612.0),
    "gc": (7_961_600, 1.13, 1.12, 916.0, 1262.0),
    "sge": (0, 1.31, 1.35, 1035.0, 1361.0),
}
# Per module: time relative to a copy, memory traffic relative to the minimum, operations per element.
MODULES = {
    "copy": (1.0, 1.0, 0.0),
    "sa": (2.1, 2.0, 5.0),
    "official": (9.3, 6.5, 9.0),
    "se": (2.4, 1.5, 3.0),
    "eca": (2.3, 1.5, 3.0),
    "cbam": (8.1, 5.0, 8.0),
    "gc": (2.9, 2.0, 4.0),
    "sge": (6.2, 5.0, 9.0),
}


def network(
    name: str, setting: Setting = FORWARD, place: str = "resnet50", status: str = "measured"
) -> dict[str, object]:
    more, forward, step, saved, peak = NETWORKS[name]
    ratio = forward if setting.mode == "forward" else step
    verdict = "baseline" if name == "none" else "slower"
    timing = Timing(20, 290 * ratio, ratio, ratio * 0.98, ratio * 1.03, 0.985, 1.02, verdict)
    counts = Costs(parameters=25_557_032, multiply_adds=PLAIN + more)
    memory = Costs(parameters=25_557_032, saved_mib=saved, peak_mib=peak)
    return Measurement(
        Subject("network", name, place, 8, 3, 224, 224),
        setting,
        status,
        timing if status == "measured" else Timing(),
        counts if setting.mode == "forward" else memory,
    ).to_row()


def module(name: str, place: str, setting: Setting = FORWARD, copy_ms: float = 4.0) -> dict[str, object]:
    times, moved, operations = MODULES[name]
    channels, side = STAGES[place]
    elements = channels * side**2
    least = 2 * 4 * 8 * elements / 2**20
    costs = Costs(multiply_adds=elements, uncounted=operations * elements, moved_mib=moved * least, least_mib=least)
    milliseconds = copy_ms * least / 49 * (times if place != "layer4" else times * 1.3)
    timing = Timing(20, milliseconds, times, times * 0.98, times * 1.02, 0.99, 1.01, "slower")
    return Measurement(
        Subject("module", name, place, 8, channels, side, side), setting, "measured", timing, costs
    ).to_row()


def benchmark_rows() -> pd.DataFrame:
    """A typical benchmark: modules and networks, a second setting, and failed measurements."""
    compiled = Setting("forward", "compiled", "fp32", "contiguous")
    return pd.DataFrame(
        [
            *(module(name, place) for place, name in product(STAGES, MODULES)),
            *(network(name, compiled) for name in ("none", "sa")),
            *(network(name, setting) for setting, name in product((FORWARD, STEP), NETWORKS)),
            network("sa", Setting("training step", "compiled", "fp32", "contiguous"), status="out of memory"),
            network("cbam", Setting("forward", "eager", "bf16", "contiguous"), status="failed: no kernel"),
        ]
    )


def cut_or_overlapping(drawn: Figure) -> list[str]:
    """Draws a figure and returns the texts that its edges cut or that overlap."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    texts = [*drawn.texts, *(text for legend in drawn.legends for text in legend.get_texts())]
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)  # shared axes have no labels
            texts += [label for at, label in labels if low <= at <= high]
        texts += [*axes.texts, axes.xaxis.label]
        texts += [text for text in axes.get_children() if isinstance(text, Text) and text not in axes.texts]
    boxes = {
        text: text.get_window_extent(canvas.get_renderer()) for text in texts if text.get_visible() and text.get_text()
    }
    cut = [text for text, box in boxes.items() if min(box.min) < 0 or box.x1 > drawn.bbox.x1 or box.y1 > drawn.bbox.y1]
    overlapping = [text for (text, box), (_, box2) in combinations(boxes.items(), 2) if box.overlaps(box2)]
    return [text.get_text() for text in cut + overlapping]
