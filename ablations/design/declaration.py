"""What a study declared before its first cell, and what was changed afterwards.

A verdict's error rates hold for what was decided before results could be seen. Another margin, metric, baseline or set
of contrasts can be picked for what it shows, and so can another number of replicates: choosing it by the spread of a
pilot of three alone raises the 5 % to between 6 and 9 %. After such a change verdicts are exploratory. Another question
changes no test. `replicates=auto` declares its interim analyses, and allows for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ablations.common.metrics import METRICS
from ablations.common.settings import Settings
from ablations.common.wording import count
from ablations.design.cells import Design

_NAMED = 6  # contrasts that are named where there are more
_REPLICATES, _TUNING = "replicates", "tuning"


@dataclass(frozen=True)
class Change:
    """Something that a study declares otherwise than before: what, from what to what, and when it was recorded.

    `time` is ISO 8601 in UTC; it is empty of what a report asks for, which nothing records.
    """

    what: str
    before: str
    after: str
    time: str = ""

    @property
    def is_exploratory(self) -> bool:
        """Whether verdicts after it are exploratory.

        Tuning that is added or left out changes no result that there is; other trials or ranges change the recipes.
        """
        is_new = self.what == _TUNING and not (self.before and self.after)
        return self.what != "question" and not is_new


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a study will judge, and by what.

    Attributes:
        question: in words.
        contrasts: variants with their baselines; none of a search, which has yet to pick them.
        baseline: the variant or level that the design names.
        metric, margin: what is compared, and the smallest difference of interest in its unit.
        replicates: of each variant; the most of them under interim analyses.
        baseline_replicates: of baselines, where they have more; otherwise 0.
        analyses: after how many replicates each interim analysis is made; none where there is one analysis alone.
        confirm: how many of a search's picks are confirmed at most; otherwise 0.
        tuning: how each variant is tuned, as `Tuning.text` says it; empty where none is.
        protocol: what all cells share.
        commit: of the code, or its version.
        command: what was typed.
        time: ISO 8601, UTC.
    """

    question: str
    contrasts: tuple[tuple[str, str], ...]
    baseline: str
    metric: str
    margin: float
    replicates: int
    baseline_replicates: int = 0
    analyses: tuple[int, ...] = ()
    confirm: int = 0
    tuning: str = ""
    protocol: Settings
    commit: str = ""
    command: str = ""
    time: str = ""

    @classmethod
    def of(
        cls, design: Design, analyses: Sequence[int] = (), *, commit: str = "", command: str = "", time: str = ""
    ) -> Declaration:
        """Returns what a design declares, with interim analyses after so many replicates."""
        pairs = tuple((name, other) for name, other in design.baselines.items() if name != other)
        return cls(
            question=design.question,
            contrasts=() if design.is_search else pairs,
            baseline=design.baseline,
            metric=design.metric,
            margin=design.margin,
            replicates=analyses[-1] if analyses else design.replicates,
            baseline_replicates=max(design.sizes.values()) if design.baseline_replicates > design.replicates else 0,
            analyses=tuple(analyses),
            confirm=design.confirm,
            tuning=design.tuning.text if design.tuning else "",
            protocol=design.protocol,
            commit=commit,
            command=command,
            time=time,
        )

    @classmethod
    def stored(cls, content: Mapping[str, Any]) -> Declaration:
        """Returns what `as_stored` made."""
        pairs = tuple((variant, baseline) for variant, baseline in content["contrasts"])
        return cls(**{**content, "contrasts": pairs, "analyses": tuple(content["analyses"])})

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of all contrasts, baselines included, each once."""
        return tuple(dict.fromkeys(name for pair in self.contrasts for name in reversed(pair)))

    @property
    def margin_text(self) -> str:
        """The margin with its unit."""
        return METRICS[self.metric].quantity(self.margin)

    @property
    def replicates_text(self) -> str:
        """How many replicates there are, in words."""
        if self.analyses:
            return f"auto ({self.analyses[0]} to {self.replicates})"
        return (
            f"{self.replicates} (baselines {self.baseline_replicates})"
            if self.baseline_replicates
            else f"{self.replicates}"
        )

    def with_replicates_of(self, other: Declaration) -> Declaration:
        """Returns this with another declaration's replicates and interim analyses."""
        return replace(
            self,
            replicates=other.replicates,
            baseline_replicates=other.baseline_replicates,
            analyses=other.analyses,
        )

    def changes_since(self, earlier: Declaration) -> list[Change]:
        """Lists what this declares otherwise; protocols are equal, as nothing else is the same study."""
        earlier_margin = f"{earlier.margin:g}" if earlier.metric == self.metric else earlier.margin_text
        said = [
            ("question", earlier.question, self.question),
            ("metric", earlier.metric, self.metric),
            ("baseline", earlier.baseline, self.baseline),
            (_REPLICATES, earlier.replicates_text, self.replicates_text),
            ("confirmed picks", str(earlier.confirm), str(self.confirm)),
            (_TUNING, earlier.tuning, self.tuning),
        ]
        changes = [Change(what, before, after) for what, before, after in said if before != after]
        if (earlier.margin, earlier.metric) != (self.margin, self.metric):
            changes.append(Change("margin", earlier_margin, self.margin_text))
        before, now = set(earlier.contrasts), set(self.contrasts)
        if self.baseline == earlier.baseline and before != now:
            removed = [pair for pair in earlier.contrasts if pair not in now]
            added = [pair for pair in self.contrasts if pair not in before]
            changes += [Change("contrasts", _named(removed), "")] if removed else []
            changes += [Change("contrasts", "", _named(added))] if added else []
        return changes


@dataclass(frozen=True)
class History:
    """What a study declared at first, what it declares now, and each change, the earliest first."""

    first: Declaration
    latest: Declaration
    changes: tuple[Change, ...] = ()

    @classmethod
    def begun(cls, declared: Declaration) -> History:
        """Returns the history of a study that has declared nothing else."""
        return cls(declared, declared)

    @classmethod
    def stored(cls, content: Mapping[str, Any] | None) -> History | None:
        """Returns what a study remembers; None where it declared nothing before its first cell."""
        if content is None:
            return None
        changes = tuple(Change(**change) for change in content["changes"])
        return cls(Declaration.stored(content["first"]), Declaration.stored(content["latest"]), changes)

    def as_stored(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return dict(json.loads(json.dumps(asdict(self))))

    def then(self, asked: Declaration) -> History:
        """Returns the history with what is declared otherwise from now on, at the time of `asked`."""
        changes = [replace(change, time=asked.time) for change in asked.changes_since(self.latest)]
        return History(self.first, asked, (*self.changes, *changes)) if changes else self

    def deviations(self, asked: Declaration) -> list[Change]:
        """Lists in what `asked` differs from what was declared at first, with the times that were recorded.

        Replicates are those that were trained, whatever is asked for.
        """
        times = {(change.what, change.after): change.time for change in self.changes}
        differences = asked.with_replicates_of(self.latest).changes_since(self.first)
        return [replace(change, time=times.get((change.what, change.after), "")) for change in differences]


def keeps_replicates(asked: Declaration, latest: Declaration, done: Iterable[tuple[str, int]]) -> bool:
    """Says whether fewer replicates than declared are asked for of a study that has them all, which changes nothing.

    `done` are the variants and replicates whose cells need no training any more.
    """
    if asked.replicates >= latest.replicates:
        return False
    if latest.analyses:
        return True
    known = set(done)
    return all((name, number) in known for name in latest.variants for number in range(latest.replicates))


def _named(pairs: Sequence[tuple[str, str]]) -> str:
    shown = ", ".join(f"{variant} against {baseline}" for variant, baseline in pairs[:_NAMED])
    return shown if len(pairs) <= _NAMED else f"{shown} and {count(len(pairs) - _NAMED, 'other')}"
