"""Which figures a study has, what is written below them, and why it has not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ablations.analysis.effects import factorial_effects
from ablations.analysis.results import Results
from ablations.analysis.study import Findings
from ablations.common.errors import SuiteError
from ablations.common.wording import count
from ablations.design import Design
from ablations.reporting.figures import FIGURES, style
from ablations.reporting.figures.complexity import complexity_frame, draw_complexity, published_frame
from ablations.reporting.figures.curves import curves_frame, draw_curves
from ablations.reporting.figures.effects import draw_effects, effects_frame
from ablations.reporting.figures.forest import draw_forest, forest_frame
from ablations.reporting.figures.levels import draw_levels, levels_frame
from ablations.reporting.figures.pairs import draw_pairs, pairs_frame
from ablations.reporting.figures.pareto import draw_pareto, pareto_frame
from ablations.reporting.figures.promise import draw_promise, promise_of_cells
from ablations.reporting.figures.search import draw_search

_ASIDE = "What would hide each other stands side by side."


@dataclass(frozen=True)
class Sketch:
    """A figure that a study has: the frame that it shows, what draws it, and how to read it.

    `n` is how many replicates it shows, where that is not what the study has of each variant; `asks` is whether the
    study's question stands in the caption.
    """

    frame: pd.DataFrame
    draw: Callable[[str], Figure]
    key: str = ""
    n: str = ""
    asks: bool = True


@dataclass(frozen=True)
class Drawn:
    """A figure that was drawn: its name, the caption below it, and its files (PNG, PDF, CSV)."""

    name: str
    caption: str
    files: list[Path]

    @property
    def title(self) -> str:
        """What it shows, in a line."""
        return FIGURES[self.name]

    @property
    def png(self) -> Path:
        """The picture."""
        return next(path for path in self.files if path.suffix == ".png")


@dataclass(frozen=True)
class Gallery:
    """The figures that were drawn, and of the others why they were not."""

    drawn: list[Drawn]
    left_out: Mapping[str, str]


def draw_figures(findings: Findings, names: Iterable[str] = FIGURES) -> Gallery:
    """Draws a study's figures into its folder, those of `names` that it has."""
    drawn: list[Drawn] = []
    left_out: dict[str, str] = {}
    for name in names:
        if findings.results.cells.empty:
            left_out[name] = "no cell is finished"
            continue
        try:
            sketch = _SKETCHES[name](findings)
        except SuiteError as error:  # weights or images that it needs are not here
            sketch = str(error)
        if isinstance(sketch, str):
            left_out[name] = sketch
            continue
        caption = _caption(findings, sketch)
        files = style.save(sketch.draw(caption), sketch.frame, findings.folder / "figures" / name)
        drawn.append(Drawn(name, caption, files))
    return Gallery(drawn, left_out)


def _caption(findings: Findings, sketch: Sketch) -> str:
    counts = findings.results.cells.groupby("variant")["replicate"].count()
    least, most = counts.min(), counts.max()
    replicates = f"{least} to {most} replicates" if least != most else count(most, "replicate")
    parts = [
        findings.design.question if sketch.asks else "",
        sketch.key,
        f"n = {sketch.n or f'{replicates} a variant'}.",
        f"{protocol_line(findings.design, findings.results)}.",
        findings.shown_note,
        findings.missing,
    ]
    return " ".join(part for part in parts if part)


def _forest(findings: Findings) -> Sketch | str:
    if findings.design.is_search:
        return "a search's variants were picked for being good; verdicts on them would flatter"
    frame = forest_frame(findings.contrasts)
    if frame.empty:
        return "no variant and its baseline have a finished replicate in common"
    key = "Bars: 95 % CI of the paired difference; verdicts: Holm-corrected." if frame["low"].notna().any() else ""
    shown = _shown(frame, findings)
    return Sketch(frame, lambda caption: draw_forest(shown, findings.design.margin, caption), key)


def _variants(findings: Findings) -> Sketch:
    design, cells = findings.design, findings.results.cells
    key = "Dots: replicates; top-1: mean and 95 % CI (Student's t); costs: median, lowest to highest."
    key = key if _repeated(findings) else ""
    if len(set(design.baselines.values())) > 1:
        frame = pairs_frame(cells, design)
        return Sketch(frame, lambda caption: draw_pairs(_shown(frame, findings), caption), key)
    frame = levels_frame(cells, design)
    return Sketch(frame, lambda caption: draw_levels(_shown(frame, findings), _factor_label(design), caption), key)


def _effects(findings: Findings) -> Sketch | str:
    effects = factorial_effects(findings.results.cells, findings.design)
    if not effects:
        return "it needs two crossed factors, and a replicate that all combinations have"
    frame = effects_frame(effects)
    key = "Bars: 95 % CI (Student's t); none where all replicates agree." if effects[0].estimate.has_interval else ""
    n = f"{count(effects[0].estimate.n, 'replicate')} of every combination"
    return Sketch(frame, lambda caption: draw_effects(frame, caption), key, n)


def _tradeoffs(findings: Findings) -> Sketch | str:
    design = findings.design
    if not design.is_search:
        return "it shows what a search tried, and this sweep is none"
    frame, shares = findings.tradeoffs, findings.importances
    given_up = int((findings.results.unfinished["state"] == "pruned").sum())
    key = f"Not shown: {count(given_up, 'variant')} that the search gave up." if given_up else ""
    maximized = [direction == "maximize" for direction in design.directions]
    return Sketch(frame, lambda caption: draw_search(frame, shares, design.objectives, maximized, caption), key)


def _pareto(findings: Findings) -> Sketch | str:
    if findings.design.is_search:
        return "`tradeoffs` shows what the search looked for"
    frame = pareto_frame(findings.results.cells, findings.design)
    if frame.empty:
        return "neither speed nor memory was measured (measure=off)"
    key = (
        "Top-1: means, with 95 % CI where n > 1; costs: medians over replicates. Rings and the line between them: what "
        f"no other variant beats in both, going by means. {_ASIDE}"
    )
    shown = _shown(frame, findings)
    return Sketch(frame, lambda caption: draw_pareto(shown, findings.design.baselines, caption), key)


def _complexity(findings: Findings) -> Sketch:
    frame = complexity_frame(findings.results.cells, findings.design, findings.multiply_adds)
    published = published_frame(findings.design)
    joined = pd.concat([frame, published], ignore_index=True)
    key = f"The area of a circle is its multiply-adds; top-1: means, with 95 % CI where n > 1. {_ASIDE}"
    if len(published):
        key += " Published numbers are others' on ImageNet-1k, each source by its own recipe (sources: the CSV beside)."
    return Sketch(joined, lambda caption: draw_complexity(frame, published, findings.design.baselines, caption), key)


def _promise(findings: Findings) -> Sketch | str:
    frame = promise_of_cells(findings.results.cells, findings.design, findings.multiply_adds, findings.plain_adds)
    if frame.empty:
        return "no time was measured of a variant with attention"
    key = "Time: medians over replicates, lowest to highest, each in turns with the plain network's."
    return Sketch(frame, lambda caption: draw_promise(frame, caption, "lowest to highest"), key)


def _learning_curves(findings: Findings) -> Sketch:
    design, curves = findings.design, findings.results.curves
    key = "Lines: means over replicates; bands: lowest to highest." if _repeated(findings) else ""
    if design.is_search:
        frame = findings.tradeoffs
        curves = curves[curves["variant"].isin(frame.loc[frame["on_front"] | ~frame["picked"], "variant"])]
        key = f"Variants on the front, and those given by name. {key}"
    baselines = set(design.baselines.values())
    frame = curves_frame(curves, design)
    shown = _shown(frame, findings)
    baseline = baselines.pop() if len(baselines) == 1 else None
    return Sketch(frame, lambda caption: draw_curves(shown, baseline, caption), key, asks=False)


def _gates(findings: Findings) -> Sketch | str:
    from ablations.reporting.figures.gates import draw_gates, gates_frame

    frame = gates_frame(findings.networks)
    if frame.empty:
        return "no variant whose weights are kept has shuffle attention with gates"
    key = (
        "Thick: middle half of the gates, thin: 5 to 95 %, dot: median; dashed: where gates start. Percentages: share "
        "of the gates' variance over images that is between classes, less what chance would give."
    )
    return Sketch(frame, lambda caption: draw_gates(frame, caption), key, _looked_at(findings), asks=False)


def _subfeatures(findings: Findings) -> Sketch | str:
    from ablations.reporting.figures.subfeatures import draw_subfeatures, subfeatures_frame

    frame = subfeatures_frame(findings.networks)
    if frame.empty:
        return "no variant whose weights are kept has shuffle attention in the stage before the classifier"
    key = (
        "A sub-feature's score is the top-1 of its channels' part of the logits alone; in networks without shuffle "
        "attention the same channels are taken."
    )
    classes = len(findings.networks.classes)
    return Sketch(
        frame, lambda caption: draw_subfeatures(frame, classes, caption), key, _looked_at(findings), asks=False
    )


def _cams(findings: Findings) -> Sketch | str:
    from ablations.reporting.figures.cams import cams_of, draw_cams

    cams = cams_of(findings.networks)
    key = (
        "Grad-CAM (Selvaraju et al. 2017) of the true class at the last feature map; the first test image of each "
        "class shown; below each what the network takes it for, and the probability of the true class."
    )
    n = "one network of each variant (replicate 0)"
    return Sketch(cams.frame, lambda caption: draw_cams(cams, caption), key, n, asks=False)


def _shown(frame: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Returns the rows of the variants that are shown."""
    return frame[frame["variant"].isin(findings.shown)].reset_index(drop=True)


def _repeated(findings: Findings) -> bool:
    return bool(findings.results.cells["variant"].duplicated().any())


def _looked_at(findings: Findings) -> str:
    images = len(findings.networks.sample)
    return f"one network of each variant (replicate 0), {count(images, 'test image')}"


_SKETCHES: dict[str, Callable[[Findings], Sketch | str]] = {
    "forest": _forest,
    "variants": _variants,
    "effects": _effects,
    "tradeoffs": _tradeoffs,
    "pareto": _pareto,
    "complexity": _complexity,
    "promise": _promise,
    "learning_curves": _learning_curves,
    "gates": _gates,
    "subfeatures": _subfeatures,
    "cams": _cams,
}


def _factor_label(design: Design) -> str:
    if len(design.factors) != 1:
        return "Variant"
    return next(iter(design.factors)).removeprefix("attention.").replace("_", " ").capitalize()


def protocol_line(design: Design, results: Results) -> str:
    """Says in a line under which protocol and on which machine the cells were trained."""
    protocol = design.protocol
    machines = " and ".join(
        dict.fromkeys(known["gpu"] if protocol["device"] == "cuda" else known["cpu"] for known in results.environments)
    )
    models = " and ".join(dict.fromkeys(variant.model["name"] for variant in design.variants))
    return (
        f"{data_line(protocol['data'])}, {models}, {count(protocol['train']['epochs'], 'epoch')}, "
        f"{protocol['train']['precision']}, last epoch; {machines}"
    )


def data_line(data: Mapping[str, Any]) -> str:
    """Names a data set, and says of a subset that it is one: `cifar10 (500 training images of each class)`."""
    parts = []
    classes = data.get("classes")
    if isinstance(classes, str):
        parts.append(f"the classes of {classes}")
    elif classes:
        parts.append(count(len(classes) if isinstance(classes, list) else classes, "class", "classes"))
    for option, what in (("train_per_class", "training"), ("val_per_class", "test")):
        if data.get(option):
            parts.append(f"{data[option]:,} {what} images of each class")
    if "resolution" in data:
        parts.append(f"{data['resolution']}x{data['resolution']} pixels")
    return f"{data['name']} ({', '.join(parts)})" if parts else str(data["name"])
