"""The declaration of a study before its first cell, later changes, and whether verdicts are exploratory, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import METRICS
from ablations.common.wording import count, listed
from ablations.design.declaration import Change

_UNDECLARED = "not declared before the first cell"
_CONFIRM = "confirm them with a new study and other seeds (study=NAME seed=1)"
EXPLORATORY = f"Verdicts are therefore exploratory; {_CONFIRM}."


def declaration_sentences(analysis: StudyAnalysis) -> list[str]:
    """Returns the date of the declaration, later changes, and cells copied from other studies in sentences."""
    known = analysis.declared
    if known is None:
        nothing = f"Nothing was declared before the first cell, so verdicts are exploratory; {_CONFIRM}."
        return [nothing, *_reused_sentence(analysis)]
    declared = f"Declared before the first cell on {_time(known.first.time)} ({_code(known.first.commit)})"
    changed = [*known.changes, *(change for change in analysis.deviations if not change.time)]
    text = f"{declared}. Changed since: {'; '.join(map(change_clause, changed))}." if changed else ""
    if any(change.is_exploratory for change in analysis.deviations):
        text += f" {EXPLORATORY}"
    elif changed:
        text += " Verdicts follow the declaration."
    return [text or f"{declared}; unchanged since.", *_reused_sentence(analysis)]


def copied_clause(origins: Mapping[str, int]) -> str:
    """Returns how many cells are copied from which studies: `Cells copied from other studies: 20 from rivals`."""
    known = ", ".join(f"{number} from {study}" for study, number in sorted(origins.items()))
    return f"Cells copied from other studies: {known or 'none'}"


def _reused_sentence(analysis: StudyAnalysis) -> list[str]:
    """Returns a sentence on the cells copied from other studies, if there are any."""
    origins = Counter(analysis.results.reused["origin"])
    if not origins:
        return []
    text, early = copied_clause(origins), analysis.known_before
    if analysis.declared is None:
        return [f"{text}."]
    if not early:
        return [f"{text}; all of them were trained after this study was declared."]
    return [f"{text}; {early} of them {_were(early)} trained before this study was declared. {EXPLORATORY}"]


def exploratory_clause(analysis: StudyAnalysis) -> str:
    """Returns why verdicts are exploratory: `exploratory: margin changed after the first cell`; empty if not."""
    if not analysis.is_exploratory:
        return ""
    if analysis.declared is None:
        return f"exploratory: {_UNDECLARED}"
    named = list(dict.fromkeys(change.what for change in analysis.deviations if change.is_exploratory))
    reasons = [f"{listed(named)} changed after the first cell"] if named else []
    if early := analysis.known_before:
        reasons.append(f"{count(early, 'cell')} {_were(early)} trained before the declaration")
    return f"exploratory: {' and '.join(reasons)}"


def exploratory_sentence(analysis: StudyAnalysis) -> str:
    """Returns why verdicts are exploratory in a sentence; empty if they are not."""
    clause = exploratory_clause(analysis)
    return f"Verdicts are {clause}." if clause else ""


def exploratory_mark(analysis: StudyAnalysis) -> str:
    """Returns the suffix of a heading of verdicts: ` (exploratory)` if they are exploratory."""
    return " (exploratory)" if exploratory_clause(analysis) else ""


def verdicts_tag(analysis: StudyAnalysis) -> str:
    """Returns MLflow's tag for the verdicts: `declared`, or why they are exploratory."""
    return exploratory_clause(analysis) or "declared"


def declaration_rows(analysis: StudyAnalysis) -> dict[str, str]:
    """Returns the declaration by item; empty if there is none."""
    if analysis.declared is None:
        return {}
    first = analysis.declared.first
    picks = f"up to {count(first.confirm, 'confirmed pick')}"
    contrasts = picks if first.confirm else count(len(first.contrasts), "contrast")
    return {
        "question": first.question,
        "contrasts": f"{contrasts}, baseline {first.baseline}",
        "metric": METRICS[first.metric].label,
        "margin": first.margin_text,
        "replicates": first.replicates_text,
        **({"tuning": first.tuning} if first.tuning else {}),
        "code": _code(first.commit),
        "time": _time(first.time),
        "command": first.command,
    }


def change_clause(change: Change) -> str:
    """Describes a change in a clause: `margin from 1 to 0.5 points on 2026-11-29 14:02 UTC`."""
    when = f"on {_time(change.time)}" if change.time else "in this report"
    if not change.before or not change.after:
        how = "added" if change.after else "removed"
        return f"{change.what} {how} {when}: {change.after or change.before}"
    return f"{difference_clause(change)} {when}"


def difference_clause(change: Change) -> str:
    """Describes a change in a clause without its time: `margin from 1 to 0.5 points`."""
    if not change.before or not change.after:
        return f"{change.what} {'added' if change.after else 'removed'}: {change.after or change.before}"
    return f"{change.what} from {change.before} to {change.after}"


def changes_sentence(changes: Sequence[Change], deviations: Sequence[Change]) -> str:
    """Describes the changes that a run makes, and whether `deviations` make verdicts exploratory."""
    text = f"Changed after the first cell: {'; '.join(map(change_clause, changes))}."
    return f"{text} Verdicts are exploratory." if any(change.is_exploratory for change in deviations) else text


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _code(commit: str) -> str:
    """Formats a commit: `commit 9f3c2a1, with uncommitted changes`."""
    if commit.startswith("version "):
        return commit
    head, changes = commit[:7], commit.endswith("+changes")
    return f"commit {head}, with uncommitted changes" if changes else f"commit {head}"


def _time(time: str) -> str:
    """Formats `2026-11-29T14:02:11+00:00` as `2026-11-29 14:02 UTC`."""
    return f"{time[:16].replace('T', ' ')} UTC"
