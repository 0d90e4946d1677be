"""Which figures a study has, and what is written below them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.design import Design
from ablations.effects import factorial_effects
from ablations.figures import style
from ablations.figures.curves import curves_frame, draw_curves
from ablations.figures.effects import draw_effects, effects_frame
from ablations.figures.forest import draw_forest, forest_frame
from ablations.figures.levels import draw_levels, levels_frame
from ablations.figures.pairs import draw_pairs, pairs_frame
from ablations.figures.search import draw_search
from ablations.results import Results
from ablations.stats import Contrast
from ablations.tradeoffs import importances, tradeoffs
from ablations.wording import count


def draw_figures(design: Design, results: Results, contrasts: Sequence[Contrast], folder: Path) -> list[Path]:
    """Draws a study's figures into `folder`; returns the files that were written.

    Args:
        design: the study.
        results: with a finished cell at least.
        contrasts: its verdicts.
        folder: `results/<study>/figures`.
    """
    counts = results.cells.groupby("variant")["replicate"].count()
    least, most = counts.min(), counts.max()
    n = f"{least} to {most} replicates" if least != most else count(most, "replicate")
    protocol = f"n = {n} a variant. {protocol_line(design, results)}."
    levels_key = (
        "Dots: replicates; top-1: mean and 95 % CI (Student's t); costs: median, lowest to highest."
        if least > 1
        else ""
    )
    curves_key = "Lines: means over replicates; bands: lowest to highest." if most > 1 else ""
    caption = f"{design.question} {levels_key} {protocol}"
    baselines = set(design.baselines.values())
    written: list[Path] = []
    curves = results.curves

    if design.is_search:
        frame = tradeoffs(results.cells, design)
        shares = importances(frame, design)
        given_up = int((results.unfinished["state"] == "pruned").sum())
        pruned = f"Not shown: {count(given_up, 'variant')} that the search gave up." if given_up else ""
        maximized = [direction == "maximize" for direction in design.directions]
        drawn = draw_search(frame, shares, design.objectives, maximized, f"{design.question} {pruned} {protocol}")
        written += style.save(drawn, frame, folder / "tradeoffs")
        curves = curves[curves["variant"].isin(frame.loc[frame["on_front"] | ~frame["picked"], "variant"])]
        curves_key = f"Variants on the front, and those given by name. {curves_key}"
    if len(baselines) > 1:
        frame = pairs_frame(results.cells, design)
        drawn = draw_pairs(frame, caption)
    else:
        frame = levels_frame(results.cells, design)
        drawn = draw_levels(frame, _factor_label(design), caption)
    written += style.save(drawn, frame, folder / "variants")
    frame = forest_frame(contrasts)
    if len(frame) and not design.is_search:
        key = "Bars: 95 % CI of the paired difference; verdicts: Holm-corrected." if frame["low"].notna().any() else ""
        drawn = draw_forest(frame, design.margin, f"{design.question} {key} {protocol}")
        written += style.save(drawn, frame, folder / "forest")
    effects = factorial_effects(results.cells, design)
    if effects:
        frame = effects_frame(effects)
        key = (
            "Bars: 95 % CI (Student's t); none where all replicates agree." if effects[0].estimate.has_interval else ""
        )
        replicates = count(effects[0].estimate.n, "replicate")
        about = f"n = {replicates} of every combination. {protocol_line(design, results)}."
        written += style.save(draw_effects(frame, f"{design.question} {key} {about}"), frame, folder / "effects")
    frame = curves_frame(curves, design)
    baseline = baselines.pop() if len(baselines) == 1 else None
    drawn = draw_curves(frame, baseline, f"{curves_key} {protocol}")
    return written + style.save(drawn, frame, folder / "learning_curves")


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
