"""The figures of a study: frames, drawing functions, captions, and reasons why a study does not have a figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from ablations.analysis.effects import effects_frame, interactions_frame
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import SuiteError
from ablations.common.metrics import METRICS
from ablations.common.parts import RAISE, Parts
from ablations.common.wording import count
from ablations.design import Design
from ablations.reporting.figures import (
    FIGURES,
    complexity,
    curves,
    edf,
    forest,
    interactions,
    learnt,
    overhead,
    pareto,
    predicted,
    protocols,
    search,
    style,
    time,
    variants,
)
from ablations.reporting.figures import tuning as tuning_figure
from ablations.reporting.figures.sketch import Sketch
from ablations.reporting.text.costs import NOT_MEASURED, measured_on
from ablations.reporting.text.declaration import exploratory_sentence
from ablations.reporting.text.scope import missing_sentence, protocol_line, shown_effects_sentence, shown_sentence
from ablations.reporting.text.tuning import comparisons_frame
from ablations.reporting.text.verdicts import assumptions_sentence

_LONGEST = 120  # characters of variant names in a file name
_NOT_CROSSED = "requires two crossed factors, and a replicate of all combinations"
_ASIDE = "Overlapping points are dodged."


@dataclass(frozen=True)
class Drawn:
    """A drawn figure: its name, its caption, and its files (PNG, PDF, CSV)."""

    name: str
    caption: str
    files: list[Path]

    @property
    def title(self) -> str:
        """The title in one line."""
        return FIGURES[self.name]

    @property
    def png(self) -> Path:
        """The PNG file."""
        return next(path for path in self.files if path.suffix == ".png")


@dataclass(frozen=True)
class Gallery:
    """The drawn figures, and the reasons why others were not drawn."""

    drawn: list[Drawn]
    left_out: Mapping[str, str]


def _forest(analysis: StudyAnalysis) -> Sketch | str:
    frame = forest.forest_frame(analysis.contrasts)
    if frame.empty:
        return "no variant and its baseline have finished the same replicate"
    key = "Bars: 95 % CI of the paired difference; verdicts: family-wise error rate at most 5 %."
    key = f"{key} {assumptions_sentence(analysis.shown_contrasts)}" if frame["low"].notna().any() else ""
    key = f"{key} {exploratory_sentence(analysis)}"
    design = analysis.design
    draw = partial(forest.draw_forest, _shown(frame, analysis), design.margin, METRICS[design.metric])
    return Sketch(frame, draw, key.strip())


def _variants(analysis: StudyAnalysis) -> Sketch:
    design, cells = analysis.design, analysis.results.cells
    key = "Dots: replicates; top-1: mean and 95 % CI (Student's t)." if _repeated(analysis) else ""
    key = f"{key} {_costs_key(analysis)}".strip()
    if len(set(design.baselines.values())) > 1:
        frame = variants.pairs_frame(cells, design, analysis.costs)
        return Sketch(frame, partial(variants.draw_pairs, _shown(frame, analysis)), key)
    frame = variants.levels_frame(cells, design, analysis.costs)
    return Sketch(frame, partial(variants.draw_levels, _shown(frame, analysis), _factor_label(design)), key)


def _effects(analysis: StudyAnalysis) -> Sketch | str:
    effects = analysis.shown_effects
    if not effects:
        return _NOT_CROSSED
    frame = effects_frame(effects)
    design, key = analysis.design, ""
    if effects[0].estimate.has_interval:
        key = "Bars: 95 % CI (Student's t); verdicts: corrected for all effects; shaded: within the margin of "
        key += f"{METRICS[design.metric].quantity(design.margin)}. {assumptions_sentence(effects)}"
    n = f"{count(effects[0].estimate.n, 'replicate')} of every combination"
    draw = partial(forest.draw_effects, frame, design.margin, METRICS[design.metric])
    return Sketch(frame, draw, key.strip(), n, shown=shown_effects_sentence(analysis))


def _interactions(analysis: StudyAnalysis) -> Sketch | str:
    frame, design = interactions_frame(analysis.results.ended, analysis.design), analysis.design
    if frame.empty:
        return _NOT_CROSSED
    metric = METRICS[design.metric]
    key = (
        f"{metric.label} ({metric.unit or 'no unit'}) of every two levels of two factors, mean over all other factors; "
        "below it, and as colour, its departure from the sum of both main effects."
    )
    if frame["low"].notna().any():
        key += " Bold: the 95 % CI of the departure (Student's t, not corrected for their number) does not contain 0."
    pairs = len(frame[["factor", "other"]].drop_duplicates())
    if pairs > interactions.MOST_PAIRS:
        key += f" Of {pairs} pairs of factors those with the largest departures are shown; the CSV beside has all."
    n = f"{count(int(frame['n'].iloc[0]), 'replicate')} of every combination"
    return Sketch(frame, partial(interactions.draw_interactions, frame, metric), key, n, shown="")


def _edf(analysis: StudyAnalysis) -> Sketch | str:
    named = pd.DataFrame(columns=["variant", "objective", "value"])
    if (selection := analysis.selection) is not None:
        tried, objectives = selection.tradeoffs, list(selection.design.objectives)
        frame = edf.edf_frame(tried[tried["picked"]], objectives)
        named = tried[~tried["picked"]].melt("variant", objectives, var_name="objective")
        n, what, results = f"{count(selection.picked, 'variant')}, 1 cell each", "of the search", selection.results
        groups, grey = [edf.PICKED], list[str]()
    elif (tuned := analysis.tuned) is not None:
        frame = edf.edf_frame(tuned.trials, [analysis.design.metric], "variant")
        n, what = f"{count(tuned.tuning.trials, 'trial')} per variant, each trained once", "of each variant's tuning"
        groups = [variant.name for variant in analysis.design.variants if variant.name in set(frame["group"])]
        grey, results = sorted(set(analysis.design.baselines.values())), tuned.as_results
    else:
        return "it shows the trials of a search or of tuning, and this study has neither"
    if frame.empty:
        return "no trial is finished"
    key = f"Share of the finished trials {what} that came to at most a value, on the validation images."
    key += " Vertical lines: variants given by name." if len(named) else ""
    draw = partial(edf.draw_edf, frame, named, groups, grey)
    return Sketch(frame, draw, key, n, shown="", asks=False, results=results)


def _time(analysis: StudyAnalysis) -> Sketch | str:
    frame = time.time_frame(analysis.results.cells, analysis.design)
    if frame.empty:
        return "no finished cell has a training time"
    key = "Means, with 95 % CI in both directions; dots: replicates. " if _repeated(analysis) else ""
    key += (
        "Time: wall-clock time of a cell including evaluation, affected by other load of the machine; the figures "
        "pareto and overhead show costs measured in isolation."
    )
    return Sketch(frame, partial(time.draw_time, _shown(frame, analysis), analysis.design.baselines), key)


def _tradeoffs(analysis: StudyAnalysis) -> Sketch | str:
    selection = analysis.selection
    if selection is None:
        return "applies to searches only"
    frame, shares = selection.tradeoffs, selection.importances
    if frame.empty:
        return "no trial is finished"
    key = "Objectives of the search on the validation images; numbers: rank of the confirmed picks."
    if not shares.empty:
        key += (
            " Black lines: 95 % quantile of the factor's importance with the objective permuted over the variants "
            f"({shares['permutations'].max()} permutations); *: exceeds the 95 % quantile of the maximum over "
            "factors, family-wise p at most 0.05."
        )
    key += f" Not shown: {count(selection.given_up, 'pruned variant')}." if selection.given_up else ""
    objectives = selection.design.objectives
    n = f"1 cell per variant, {count(selection.picked, 'trial')}"
    return Sketch(
        frame, partial(search.draw_search, frame, shares, objectives), key, n, shown="", results=selection.results
    )


def _tuning(analysis: StudyAnalysis) -> Sketch | str:
    tuned = analysis.tuned
    if tuned is None or tuned.trials.empty:
        return "requires tuning (tune.trials)"
    frame = tuning_figure.tuning_frame(tuned)
    names = [variant.name for variant in analysis.design.variants if (frame["variant"] == variant.name).any()]
    baselines = sorted(set(analysis.design.baselines.values()))
    key = (
        "Left: expected best value on the validation images against the number of trials (mean over all subsets of "
        "the trials; Dodge et al. 2019, Tang et al. 2020). Right: recipes evaluated (dots) and the best of each "
        "variant (marker); shaded: outer tenths of a range."
    )
    n = f"{count(tuned.tuning.trials, 'trial')} per variant, each trained once"
    draw = partial(tuning_figure.draw_tuning, tuned, names, baselines)
    return Sketch(frame, draw, key, n, shown="", asks=False, results=tuned.as_results)


def _comparisons(analysis: StudyAnalysis) -> Sketch | str:
    if analysis.at_best is None:
        return "requires tuning (tune.trials)"
    frame, design = comparisons_frame(analysis), analysis.design
    if frame.empty:
        return "no variant and its baseline have finished the same replicate"
    key = "Bars: 95 % CI of the paired difference; verdicts: family-wise error rate at most 5 % per comparison. "
    key += assumptions_sentence([*analysis.contrasts, *analysis.at_best.contrasts])
    margins = dict.fromkeys(frame["protocol"], design.margin)
    draw = partial(protocols.draw_protocols, _shown(frame, analysis), margins, METRICS[design.metric])
    return Sketch(frame, draw, f"{key} {exploratory_sentence(analysis)}".strip())


def _pareto(analysis: StudyAnalysis) -> Sketch | str:
    frame = pareto.pareto_frame(analysis.results.cells, analysis.design, analysis.costs)
    if frame.empty:
        return NOT_MEASURED
    key = (
        "Top-1: means, with 95 % CI where n > 1. Rings and the line between them: what no other variant beats in both, "
        f"going by means. {_costs_key(analysis)} {_ASIDE}"
    )
    return Sketch(frame, partial(pareto.draw_pareto, _shown(frame, analysis), analysis.design.baselines), key)


def _complexity(analysis: StudyAnalysis) -> Sketch:
    frame = complexity.complexity_frame(analysis.results.cells, analysis.design, analysis.multiply_adds)
    published = complexity.published_frame(analysis.design)
    joined = pd.concat([frame, published], ignore_index=True)
    key = f"The area of a circle is its multiply-adds; top-1: means, with 95 % CI where n > 1. {_ASIDE}"
    if len(published):
        key += " Published numbers: ImageNet-1k, recipes differ between sources (sources: see the CSV file)."
    return Sketch(joined, partial(complexity.draw_complexity, frame, published, analysis.design.baselines), key)


def _overhead(analysis: StudyAnalysis) -> Sketch | str:
    frame = overhead.overhead_of_variants(analysis.costs, analysis.design, analysis.multiply_adds, analysis.plain_adds)
    if frame.empty:
        return "no variant with attention was timed"
    key = (
        f"Time: relative to the network without attention, geometric mean over copies, 95 % CI. {_costs_key(analysis)}"
    )
    return Sketch(frame, partial(overhead.draw_overhead, frame), key)


def _learning_curves(analysis: StudyAnalysis) -> Sketch:
    design, shown = analysis.design, analysis.results.curves
    key = "Lines: means over replicates; bands: minimum to maximum." if _repeated(analysis) else ""
    baselines = set(design.baselines.values())
    key = f"{key} {_tested_between(shown)}".strip()
    frame = curves.curves_frame(shown, design)
    baseline = baselines.pop() if len(baselines) == 1 else None
    return Sketch(frame, partial(curves.draw_curves, _shown(frame, analysis), baseline), key, asks=False)


def _tested_between(shown: pd.DataFrame) -> str:
    """Returns the number of test images before the last epoch in a sentence; empty if all were used, or unknown."""
    last = shown["epoch"] == shown["epoch"].max()
    before, at_last = (shown.loc[part, "test_images"].max() for part in (~last, last))
    if before == 0 < at_last and shown.loc[~last, "top1"].isna().all():
        return "Test images were evaluated after the last epoch only, as recipes or variants were selected."
    if not 0 < before < at_last:
        return ""
    return f"Top-1 before the last epoch: on a fixed subset of {before:,.0f} of the {at_last:,.0f} test images."


def _costs_key(analysis: StudyAnalysis) -> str:
    """Describes the measurement of costs; empty if they were not measured."""
    return f"Costs measured {measured_on(analysis.costs)}." if analysis.costs else ""


def _shown(frame: pd.DataFrame, analysis: StudyAnalysis) -> pd.DataFrame:
    """Returns the rows of the shown variants."""
    return frame[frame["variant"].isin(analysis.shown)].reset_index(drop=True)


def _repeated(analysis: StudyAnalysis) -> bool:
    return bool(analysis.results.cells["variant"].duplicated().any())


def _factor_label(design: Design) -> str:
    if len(design.factors) != 1:
        return "Variant"
    return next(iter(design.factors)).removeprefix("attention.").replace("_", " ").capitalize()


def _caption(analysis: StudyAnalysis, sketch: Sketch) -> str:
    results = sketch.results or analysis.results
    counts = results.cells["variant"].value_counts()
    least, most = counts.min(), counts.max()
    replicates = f"{least} to {most} replicates" if least != most else count(most, "replicate")
    parts = [
        analysis.design.question if sketch.asks else "",
        sketch.key,
        f"n = {sketch.n or f'{replicates} per variant'}.",
        f"{protocol_line(analysis.design, results)}.",
        shown_sentence(analysis) if sketch.shown is None else sketch.shown,
        missing_sentence(results),
    ]
    return " ".join(part for part in parts if part)


def _of_pair(analysis: StudyAnalysis) -> str:
    """Returns the suffix of file names of figures that compare two variants, as `-sa-against-se`."""
    against = analysis.config.against
    if not against:
        return ""
    *compared, reference = against if isinstance(against, list) else [against]
    text = "".join(f"-{name}" for name in compared) + f"-against-{reference}"
    return re.sub(r"[^\w.+=-]+", "_", text)[:_LONGEST]


# By the names of `ablations.config.FIGURES`: functions that return a sketch, or why a study does not have the figure.
SKETCHES: dict[str, Callable[[StudyAnalysis], Sketch | str]] = {
    "forest": _forest,
    "variants": _variants,
    "effects": _effects,
    "interactions": _interactions,
    "tradeoffs": _tradeoffs,
    "edf": _edf,
    "comparisons": _comparisons,
    "tuning": _tuning,
    "pareto": _pareto,
    "time": _time,
    "complexity": _complexity,
    "overhead": _overhead,
    "learning_curves": _learning_curves,
    "classes": predicted.classes_sketch,
    "confusion": predicted.confusion_sketch,
    "calibration": predicted.calibration_sketch,
    "gates": learnt.gates_sketch,
    "subfeatures": learnt.subfeatures_sketch,
    "cams": learnt.cams_sketch,
}


def draw_figures(analysis: StudyAnalysis, names: Iterable[str] = FIGURES, parts: Parts = RAISE) -> Gallery:
    """Draws those of the figures `names` that a study has to its folder; failures are recorded in `parts`."""
    drawn: list[Drawn] = []
    left_out: dict[str, str] = {}
    for name in names:
        result = parts.make(f"figure {name}", None, _draw_figure, analysis, name, parts)
        if isinstance(result, str):
            left_out[name] = result
        elif result is not None:
            drawn.append(result)
    return Gallery(drawn, left_out)


def _draw_figure(analysis: StudyAnalysis, name: str, parts: Parts) -> Drawn | str:
    """Draws a figure of a study; returns the reason if the study does not have it."""
    of_trials = (name in ("tradeoffs", "edf") and analysis.selection) or (name in ("tuning", "edf") and analysis.tuned)
    if analysis.results.cells.empty and not of_trials:
        return "no cell is finished"
    try:
        sketch = SKETCHES[name](analysis)
    except SuiteError as error:  # needed weights or images are missing
        return str(error)
    if isinstance(sketch, str):
        return sketch
    for file, reason in sketch.unread.items():
        parts.leave_out(file, reason)
    caption = parts.make(f"caption of figure {name}", "", _caption, analysis, sketch)
    path = analysis.folder / "figures" / f"{name}{_of_pair(analysis)}"
    try:
        files = style.save(sketch.draw(caption), sketch.frame, path)
    except OSError:
        raise
    except Exception as error:
        if not caption or parts.raises:
            raise
        # Raises again unless the caption is the cause.
        files, caption = style.save(sketch.draw(""), sketch.frame, path), ""
        parts.add(f"caption of figure {name}", error)
    return Drawn(name, caption, files)
