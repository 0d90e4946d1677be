"""Tables with title and explanation, and those that only some studies have besides the table of variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ablations.analysis.effects import effects_frame
from ablations.analysis.importances import ALPHA, LEAST_FOR_IMPORTANCES, MOST_FOR_IMPORTANCES
from ablations.analysis.selection import Selection
from ablations.analysis.study import MOST_SHOWN, StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.common.parts import RAISE, Parts
from ablations.common.wording import count, last_line
from ablations.reporting.text.declaration import exploratory_mark
from ablations.reporting.text.numbers import difference_with_interval, on_validation
from ablations.reporting.text.scope import shown_effects_sentence
from ablations.reporting.text.verdicts import assumptions_sentence, verdict_mark

_LISTED = 100  # unfinished cells


@dataclass(frozen=True)
class Section:
    """A table with an explanation; its first `names` columns are text, the others numbers."""

    title: str
    note: str
    headers: tuple[str, ...]
    rows: list[list[str]]
    names: int = 1


def unfinished_table(analysis: StudyAnalysis) -> Section:
    """Returns one row per unfinished cell, failed ones first if there are too many to list."""
    unfinished = analysis.results.unfinished
    if len(unfinished) > _LISTED:
        unfinished = unfinished.sort_values("state", key=lambda states: states != "failed", kind="stable")
    rows = [
        [str(row["variant"]), str(row["replicate"]), str(row["state"]), last_line(row["reason"])]
        for row in unfinished.head(_LISTED).to_dict("records")
    ]
    if len(unfinished) > _LISTED:
        rows.append([f"and {len(unfinished) - _LISTED:,} more", "", "", ""])
    return Section("Unfinished cells", "", ("variant", "replicate", "state", "reason"), rows, names=4)


def make_sections(analysis: StudyAnalysis, parts: Parts = RAISE) -> list[Section]:
    """Returns the sections of crossed factors' effects, or of a search; nothing if there is neither."""
    found = [parts.make("section of effects or selection", None, main_section, analysis)]
    if analysis.selection is not None and not analysis.selection.tradeoffs.empty:
        found.append(parts.make("section of importances", None, _importances_section, analysis.selection))
    return [section for section in found if section]


def main_section(analysis: StudyAnalysis) -> Section | None:
    """Returns the section of crossed factors' effects, or of a search's selection; None if there is neither."""
    if (selection := analysis.selection) is not None:
        return None if selection.tradeoffs.empty else _selection_section(selection)
    if analysis.results.cells.empty:
        return None
    return _effects_section(analysis) if analysis.effects else None


def main_frame(analysis: StudyAnalysis) -> tuple[str, pd.DataFrame]:
    """Returns the name and the numbers of `main_section`: `effects` in points, or `selection`.

    A selection has all evaluated variants with their values on the validation images.
    """
    if analysis.selection is not None:
        return "selection", analysis.selection.tradeoffs
    frame = effects_frame(analysis.effects).rename(columns={"name": "effect", "mean": "points"})
    columns = ["effect", "reference", "order", "n", "points", "low", "high", "p", "p_equivalence", "verdict"]
    return "effects", frame[[*columns, "assumes_normal"]]


def _effects_section(analysis: StudyAnalysis) -> Section:
    effects = analysis.shown_effects
    n = effects[0].estimate.n
    metric = METRICS[analysis.design.metric]
    rows = [
        [effect.name, effect.reference, difference_with_interval(effect.estimate, metric), verdict_mark(effect)]
        for effect in effects
    ]
    return Section(
        "Main effects and interactions",
        f"In {metric.difference_unit} of {metric.label.lower()}, over {count(n, 'replicate')} of all combinations. A "
        "main effect is the difference to the factor's first level, averaged over all combinations of the other "
        "factors; an interaction is the change of such a difference with the levels of the other factors. Verdicts "
        f"are corrected for all {len(analysis.effects)} effects; intervals are not corrected. "
        f"{assumptions_sentence(effects)} {shown_effects_sentence(analysis)}".rstrip(),
        ("effect of", "against", f"{metric.difference_unit} [95 % CI]", f"verdict{exploratory_mark(analysis)}"),
        rows,
        names=2,
    )


def _selection_section(selection: Selection) -> Section:
    """Returns the selected picks, the rest of the front, and the named variants."""
    design, frame = selection.design, selection.tradeoffs
    several = len(design.objectives) > 1
    listed = frame[(frame["rank"] > 0) | ~frame["picked"] | (frame["on_front"] & several)]
    order = [*listed[listed["rank"] > 0].sort_values("rank").index, *listed[listed["rank"] == 0].index]
    listed = listed.loc[order]
    keys = list(dict.fromkeys([*design.objectives, "parameters"]))
    rows = [
        [str(row["variant"]), _confirmed_as(row), *([row["label"] or "–"] if several else [])]
        + [METRICS[key].format(row[key]) for key in keys]
        for row in listed.head(MOST_SHOWN).to_dict("records")
    ]
    share = f"{100 * design.validation:g} %"
    note = (
        f"Objectives of the search: one cell per variant, trained without {share} of the training images and "
        "evaluated on them. Values of selected variants are optimistic (winner's curse) and not results; results are "
        "in the table of variants, from new replicates on the test images."
    )
    if several:
        note += (
            " Letters mark the Pareto front. Picks are the best variant in each objective, then those with the "
            "largest crowding distance on the front."
        )
    hidden = f"Shown: the first {MOST_SHOWN} of {len(listed):,}. " if len(listed) > MOST_SHOWN else ""
    note += f" {hidden}tables/selection.csv lists all {count(selection.picked, 'trial')}."
    if any(key.endswith("per_second") for key in design.objectives):
        note += " Speeds were measured during training and include other load of the machine."
    if design.max_parameters:
        note += f" Only variants with up to {design.max_parameters:,} parameters are eligible."
    headers = ["variant", "confirmed", *(["front"] if several else [])]
    headers += [on_validation(key) for key in keys]
    return Section("Selection (validation)", note, tuple(headers), rows, names=3 if several else 2)


def _confirmed_as(row: Mapping[Any, Any]) -> str:
    return f"pick {row['rank']}" if row["rank"] else "no" if row["picked"] else "named"


def _importances_section(selection: Selection) -> Section:
    title, shares = "Importance of factors", selection.importances
    if shares.empty:
        tried = f"fewer than {LEAST_FOR_IMPORTANCES} variants were evaluated"
        return Section(title, f"Not available: {tried}, or the objectives have no variance.", (), [])
    known = [objective for objective in selection.design.objectives if (shares["objective"] == objective).any()]
    by_place = {(row["factor"], row["objective"]): row for row in shares.to_dict("records")}
    rows = [
        [str(factor), *(_share(by_place[str(factor), objective]) for objective in known)]
        for factor in dict.fromkeys(shares["factor"])
    ]
    picked, most = selection.picked, MOST_FOR_IMPORTANCES
    of_which = str(picked) if picked <= most else f"{most}, drawn at random, of the {picked:,}"
    note = (
        f"Share of each objective's variance over {of_which} fully trained variants (fANOVA main effects; the rest "
        "are interactions), without direction. In brackets: 95 % quantile of the factor's importance under "
        f"{shares['permutations'].max()} permutations of the objective over the variants; *: exceeds the 95 % "
        "quantile of the maximum over factors, family-wise p at most 0.05."
    )
    return Section(title, note, ("factor", *(on_validation(objective) for objective in known)), rows)


def _share(row: Mapping[Any, Any]) -> str:
    star = "*" if row["p_family"] <= ALPHA else ""
    return f"{row['importance']:.2f}{star} [{row['null_95']:.2f}]"
