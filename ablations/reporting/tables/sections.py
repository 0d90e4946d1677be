"""The tables that some sweeps have beyond the table of variants: effects of crossed factors, findings of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablations.analysis.effects import Effect
from ablations.analysis.study import MOST_SHOWN, StudyAnalysis
from ablations.analysis.tradeoffs import LEAST_FOR_IMPORTANCES, MOST_FOR_IMPORTANCES
from ablations.common.metrics import METRICS
from ablations.common.wording import count
from ablations.reporting.text.numbers import points_with_interval


@dataclass(frozen=True)
class Section:
    """A further table of a report, with a sentence or two on how to read it; its first `names` columns are text."""

    title: str
    note: str
    headers: tuple[str, ...]
    rows: list[list[str]]
    names: int = 1


def make_sections(analysis: StudyAnalysis) -> list[Section]:
    """Returns the tables that some sweeps have beyond the table of variants."""
    if analysis.results.cells.empty:
        return []
    if analysis.design.is_search:
        return _search_sections(analysis)
    return [_effects_section(analysis.effects)] if analysis.effects else []


def _effects_section(effects: Sequence[Effect]) -> Section:
    n = effects[0].estimate.n
    rows = [[effect.name, effect.reference, points_with_interval(effect.estimate)] for effect in effects]
    return Section(
        "Main effects and interactions",
        f"In points of top-1, over {count(n, 'replicate')} with every combination. A main effect is the difference to "
        "the factor's first level, averaged over all combinations of the other factors; an interaction is by how much "
        "such a difference changes with the other factors. Intervals are not corrected for how many there are.",
        ("effect of", "against", "points [95 % CI]"),
        rows,
        names=2,
    )


def _search_sections(analysis: StudyAnalysis) -> list[Section]:
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
    sections = [Section("Pareto front" if several else "Best found", note, headers, rows, names=2)]
    shares = analysis.importances
    if shares.empty:
        note = (
            f"Unknown: fewer than {LEAST_FOR_IMPORTANCES} variants were tried, or no objective differed between them."
        )
        return [*sections, Section("Importance of factors", note, (), [])]
    table = shares.pivot_table(index="factor", columns="objective", values="importance", sort=False)
    known = [objective for objective in design.objectives if objective in table]
    per_factor = zip(table.index, table[known].to_numpy(), strict=True)
    rows = [[str(factor), *(f"{share:.2f}" for share in own)] for factor, own in per_factor]
    picked = int(frame["picked"].sum())
    most = MOST_FOR_IMPORTANCES
    of_which = str(picked) if picked <= most else f"{most}, drawn at random, of the {picked:,}"
    note = (
        f"Shares of each objective's variance over {of_which} variants that were picked and trained to the end "
        "(fANOVA), the rest being interactions; they say nothing about direction, and little where few were tried."
    )
    headers = ("factor", *(METRICS[objective].label for objective in known))
    return [*sections, Section("Importance of factors", note, headers, rows)]
