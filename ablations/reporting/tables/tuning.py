"""The tables of tuning: results under the common recipe and under each variant's best one, and all trials."""

from __future__ import annotations

import pandas as pd

from ablations.analysis.multiverse import agreements
from ablations.analysis.study import StudyAnalysis
from ablations.analysis.tuning import Tuned
from ablations.common.metrics import METRICS
from ablations.common.parts import RAISE, Parts
from ablations.reporting.tables.sections import Section
from ablations.reporting.text.declaration import exploratory_mark
from ablations.reporting.text.multiverse import agreement_word
from ablations.reporting.text.numbers import difference_with_interval, mean_with_interval, on_validation
from ablations.reporting.text.tuning import AT_BEST, ONE_RECIPE, comparisons_frame
from ablations.reporting.text.verdicts import assumptions_sentence, verdict_mark
from ablations.stats import Contrast


def tuning_sections(analysis: StudyAnalysis, parts: Parts = RAISE) -> list[Section]:
    """Returns the table of both comparisons, if there are results, and the best recipes of tuned variants."""
    best = analysis.at_best
    if analysis.tuned is None or best is None:
        return []
    compared = parts.make("section of both comparisons", None, _comparisons_section, analysis, best)
    recipes = parts.make("section of the best recipes", None, _recipes_section, analysis.tuned, best)
    return [section for section in (compared, recipes) if section]


def _comparisons_section(analysis: StudyAnalysis, best: StudyAnalysis) -> Section | None:
    if comparisons_frame(analysis).empty:
        return None
    sides = [{contrast.variant: contrast for contrast in side.contrasts} for side in (analysis, best)]
    found = agreements(comparisons_frame(analysis))
    rows = []
    for name, baseline in analysis.design.baselines.items():
        if name != baseline:
            cells = [text for side in sides for text in _cells(side.get(name), analysis)]
            agreement = found.get((name, baseline))
            rows.append([name, *cells, agreement_word(agreement) if agreement else "–"])
    metric = METRICS[analysis.design.metric]
    note = (
        f"Differences to the baseline in {metric.difference_unit or metric.label} [95 % CI]. "
        f"{ONE_RECIPE.capitalize()}: all variants under the recipe of the protocol. {AT_BEST.capitalize()}: each "
        "variant, including the baseline, under the recipe of its best trial, retrained on all training images. "
        "Verdicts are corrected within each comparison. "
        f"{assumptions_sentence([*analysis.contrasts, *best.contrasts])}"
    )
    verdict = f"verdict{exploratory_mark(analysis)}"
    headers = ("variant", ONE_RECIPE, verdict, AT_BEST, verdict, "verdicts")
    return Section("Common recipe and best recipe of each variant", note.strip(), headers, rows)


def _recipes_section(tuned: Tuned, best: StudyAnalysis) -> Section:
    metric = METRICS[tuned.design.metric]
    best_trials = tuned.trials[tuned.trials["best"]]
    values = dict(zip(best_trials["variant"], best_trials[metric.key].astype(float), strict=True))
    results = {summary.variant: mean_with_interval(summary.judged, metric) for summary in best.summaries}
    rows = [
        [name, *map(str, recipe.values()), metric.format(values[name]), results.get(name, "–")]
        for name, recipe in tuned.recipes.items()
    ]
    note = (
        "The recipe of each variant's best trial. Its value on the validation images is optimistic (winner's curse) "
        "and not a result. tables/tuning.csv lists all trials."
    )
    options = (path.partition(".")[2].replace("_", " ") for path in tuned.tuning.space)
    headers = ("variant", *options, on_validation(metric.key), f"result: {metric.axis}")
    return Section("Best recipes", note, headers, rows)


def tuning_frames(analysis: StudyAnalysis) -> dict[str, pd.DataFrame]:
    """Returns the frames of tuning by file name; none without tuning."""
    if analysis.tuned is None:
        return {}
    frames = {"tuning": analysis.tuned.trials}
    if analysis.at_best is not None:
        frames["comparisons"] = comparisons_frame(analysis)
    return frames


def _cells(contrast: Contrast | None, analysis: StudyAnalysis) -> list[str]:
    """Returns the difference and verdict of a contrast in one of the comparisons."""
    if contrast is None or contrast.difference is None:
        return ["–", ""]
    return [difference_with_interval(contrast.difference, METRICS[analysis.design.metric]), verdict_mark(contrast)]
