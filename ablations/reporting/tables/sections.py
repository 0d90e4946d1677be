"""A table with its title and how to read it, and those that some studies have beyond the table of variants."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ablations.analysis.effects import effects_frame
from ablations.analysis.study import MOST_SHOWN, StudyAnalysis
from ablations.analysis.tradeoffs import LEAST_FOR_IMPORTANCES, MOST_FOR_IMPORTANCES
from ablations.common.metrics import METRICS
from ablations.common.wording import count, last_line
from ablations.reporting.text.declaration import exploratory_mark
from ablations.reporting.text.numbers import difference_with_interval
from ablations.reporting.text.scope import shown_effects_sentence
from ablations.reporting.text.verdicts import assumptions_sentence, verdict_mark

_LISTED = 100  # cells that are not finished


@dataclass(frozen=True)
class Section:
    """A table with a sentence or two on how to read it; its first `names` columns are text, the others numbers."""

    title: str
    note: str
    headers: tuple[str, ...]
    rows: list[list[str]]
    names: int = 1


def unfinished_table(analysis: StudyAnalysis) -> Section:
    """Returns a row a cell that is not finished, the failed ones first where they are too many to be listed."""
    unfinished = analysis.results.unfinished
    if len(unfinished) > _LISTED:
        unfinished = unfinished.sort_values("state", key=lambda states: states != "failed", kind="stable")
    rows = [
        [str(row["variant"]), str(row["replicate"]), str(row["state"]), last_line(row["reason"])]
        for row in unfinished.head(_LISTED).to_dict("records")
    ]
    if len(unfinished) > _LISTED:
        rows.append([f"and {len(unfinished) - _LISTED:,} others", "", "", ""])
    return Section("Unfinished cells", "", ("variant", "replicate", "state", "reason"), rows, names=4)


def make_sections(analysis: StudyAnalysis) -> list[Section]:
    """Returns the effects of crossed factors, or what a search found; nothing where there is neither."""
    if analysis.results.cells.empty:
        return []
    if analysis.design.is_search:
        return [_front_section(analysis), _importances_section(analysis)]
    return [_effects_section(analysis)] if analysis.effects else []


def main_frame(analysis: StudyAnalysis) -> tuple[str, pd.DataFrame]:
    """Returns the first of `make_sections` in plain numbers, and what it is called: effects in points, or the front."""
    if analysis.design.is_search:
        frame = analysis.tradeoffs
        return "front", frame[frame["on_front"]].drop(columns=["on_front", "picked", "fits"])
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
        f"In {metric.difference_unit} of {metric.label.lower()}, over {count(n, 'replicate')} with every combination. "
        "A main effect is the difference to the factor's first level, averaged over all combinations of the other "
        "factors; an interaction is by how much such a difference changes with the other factors. Verdicts are "
        f"corrected for all {len(analysis.effects)} effects, as those of contrasts are for theirs; intervals are not."
        f" {assumptions_sentence(effects)} {shown_effects_sentence(analysis)}".rstrip(),
        ("effect of", "against", f"{metric.difference_unit} [95 % CI]", f"verdict{exploratory_mark(analysis)}"),
        rows,
        names=2,
    )


def _front_section(analysis: StudyAnalysis) -> Section:
    design, frame = analysis.design, analysis.tradeoffs
    front = frame[frame["on_front"]].sort_values("label", key=lambda labels: labels.map(lambda text: (len(text), text)))
    shown = list(dict.fromkeys([*design.objectives, "parameters"]))
    rows = [
        [row["label"], str(row["variant"]), str(row["n"]), *(METRICS[key].format(row[key]) for key in shown)]
        for row in front.head(MOST_SHOWN).to_dict("records")
    ]
    several = len(design.objectives) > 1
    note = (
        "No other variant is at least as good in every objective and better in one." if several else "The best variant."
    )
    if len(front) > MOST_SHOWN:
        note += f" The first {MOST_SHOWN} of {len(front):,} are listed; tables/front.csv has all."
    note += " Picked after seeing the results, which flatters it."
    if any(key.endswith("per_second") for key in design.objectives):
        note += " Speeds are those of the moment: what else the machine did is in them."
    if design.max_parameters:
        note += f" Only variants with up to {design.max_parameters:,} parameters count."
    headers = ("", "variant", "n", *(METRICS[key].axis for key in shown))
    return Section("Pareto front" if several else "Best found", note, headers, rows, names=2)


def _importances_section(analysis: StudyAnalysis) -> Section:
    title, shares = "Importance of factors", analysis.importances
    if shares.empty:
        tried = f"fewer than {LEAST_FOR_IMPORTANCES} variants were tried"
        return Section(title, f"Unknown: {tried}, or no objective differed between them.", (), [])
    table = shares.pivot_table(index="factor", columns="objective", values="importance", sort=False)
    known = [objective for objective in analysis.design.objectives if objective in table]
    rows = [[str(row[0]), *(f"{share:.2f}" for share in row[1:])] for row in table[known].itertuples()]
    picked, most = int(analysis.tradeoffs["picked"].sum()), MOST_FOR_IMPORTANCES
    of_which = str(picked) if picked <= most else f"{most}, drawn at random, of the {picked:,}"
    note = (
        f"Shares of each objective's variance over {of_which} variants that were picked and trained to the end "
        "(fANOVA), the rest being interactions; they say nothing about direction, and little where few were tried."
    )
    return Section(title, note, ("factor", *(METRICS[objective].label for objective in known)), rows)
