"""Tuning as text: method, best recipes, and optima at an edge of the search space."""

from __future__ import annotations

import pandas as pd

from ablations.analysis.multiverse import agreements, contrasts_frame
from ablations.analysis.study import StudyAnalysis
from ablations.analysis.tuning import Optimum, Tuned
from ablations.common.metrics import METRICS
from ablations.common.settings import Settings
from ablations.common.wording import count
from ablations.design.tuning import Dimension, widened
from ablations.reporting.text.multiverse import tally_sentence
from ablations.reporting.text.scope import missing_sentence
from ablations.reporting.text.verdicts import contrast_sentence

ONE_RECIPE, AT_BEST = "common recipe", "best recipe of each"
_SAMPLERS = {"qmc": "the same quasi-random recipes for all variants", "tpe": "proposed by TPE for each variant"}


def tuning_sentences(analysis: StudyAnalysis) -> list[str]:
    """Returns sentences on the method, verdicts under the best recipes, and optima at an edge."""
    tuned, best = analysis.tuned, analysis.at_best
    if tuned is None:
        return []
    sentences = [_method_sentence(tuned), *_missing_sentences(tuned)]
    if best is None:
        return [*sentences, "No trial has a result, so no variant has a best recipe."]
    design = analysis.design
    metric = METRICS[design.metric]
    decided = [contrast for contrast in best.shown_contrasts if contrast.difference is not None]
    if decided:
        sentences += [
            f"{AT_BEST.capitalize()}: {contrast_sentence(contrast, design.margin, metric)}" for contrast in decided
        ]
        found = agreements(comparisons_frame(analysis))
        sentences.append(f"Common recipe against best recipe of each: {tally_sentence(found.values(), 2)}")
    return sentences + edge_sentences(tuned)


def comparisons_frame(analysis: StudyAnalysis) -> pd.DataFrame:
    """Returns the contrasts under the common recipe and under the best recipes, in the format of `contrasts_frame`.

    Those without a finished replicate of both variants are left out.
    """
    sides = {ONE_RECIPE: analysis.contrasts, AT_BEST: analysis.at_best.contrasts if analysis.at_best else []}
    frame = contrasts_frame(sides, dict.fromkeys(sides, analysis.design.margin))
    return frame[frame["n"] > 0].reset_index(drop=True)


def recipe_text(recipe: Settings) -> str:
    """Formats the tuned values of a recipe: `learning_rate=0.12, weight_decay=0.0005`."""
    return ", ".join(f"{path.partition('.')[2]}={value}" for path, value in recipe.items())


def space_text(tuned: Tuned) -> str:
    """Formats the space: `train.learning_rate from 0.05 to 0.8 (log scale), train.batch_size of 16, 32, 64`."""
    return ", ".join(f"{path} {_range_text(dimension)}" for path, dimension in tuned.tuning.space.items())


def edge_sentences(tuned: Tuned) -> list[str]:
    """Returns sentences on best recipes in the outer tenths of a range, with how to widen it."""
    at_edges: dict[tuple[str, int], list[Optimum]] = {}
    for optimum in tuned.optima:
        if optimum.edge:
            at_edges.setdefault((optimum.option, optimum.edge), []).append(optimum)
    sentences = []
    for (option, edge), optima in at_edges.items():
        listed = ", ".join(f"{optimum.variant} ({optimum.value:g})" for optimum in optima)
        tenth = "lowest" if edge < 0 else "highest"
        low, high = widened(option, tuned.tuning.space[option], edge)
        wider = (
            f"; tune.space.{option}=[{low:g},{high:g}] would extend the range"
            if (low, high) != tuned.tuning.space[option].ends
            else ", which is the limit of the option"
        )
        sentences.append(f"At an edge: the best {option} is in the {tenth} tenth of its range for {listed}{wider}.")
    return sentences


def _method_sentence(tuned: Tuned) -> str:
    tuning = tuned.tuning
    return (
        f"Tuning: {count(tuning.trials, 'trial')} per variant, {_SAMPLERS[tuning.sampler]}, with {space_text(tuned)}. "
        f"Trials are evaluated on {100 * tuning.validation:g} % of the training images, which are held out from their "
        "training, with seeds that no replicate uses; no test image was used to select a recipe."
    )


def _missing_sentences(tuned: Tuned) -> list[str]:
    sentences = []
    metric = tuned.design.metric
    trials = tuned.tuning.trials * len(tuned.design.variants)
    if missing := trials - len(tuned.trials):
        sentences.append(f"{count(missing, 'trial')} of {trials} {'is' if missing == 1 else 'are'} not trained yet.")
    if lost := int(tuned.trials[metric].isna().sum()):
        sentences.append(f"{count(lost, 'trial')} diverged or failed and ranked last.")
    if missing_results := missing_sentence(tuned.results):
        sentences.append(f"Under the best recipes: {missing_results[0].lower()}{missing_results[1:]}")
    without = [variant.name for variant in tuned.design.variants if variant.name not in tuned.recipes]
    if without and tuned.recipes:
        sentences.append(f"Without a best recipe, as no trial has a result: {', '.join(without)}.")
    return sentences


def _range_text(dimension: Dimension) -> str:
    if dimension.choices:
        return f"of {', '.join(map(str, dimension.choices))}"
    low, high = dimension.ends
    return f"from {low:g} to {high:g}{' (log scale)' if dimension.is_log else ''}"
