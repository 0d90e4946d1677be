"""The declaration of a study before its first cell, and later changes.

The error rates of verdicts hold for analyses that were decided before results were known. A margin, metric, baseline,
set of contrasts or number of replicates that is changed afterwards may depend on the results: choosing the number of
replicates by the variance of a pilot of three alone raises the error rate from 5 % to between 6 and 9 %. After such a
change verdicts are exploratory. Changing the question does not affect any test. `replicates=auto` declares its interim
analyses and corrects for them.
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

_NAMED = 6  # contrasts listed in a change
_REPLICATES, _TUNING = "replicates", "tuning"


@dataclass(frozen=True)
class Change:
    """A change of a study's declaration: the item, its values before and after, and the time when it was recorded.

    `time` is ISO 8601 in UTC; it is empty for deviations of a report, which are not recorded.
    """

    what: str
    before: str
    after: str
    time: str = ""

    @property
    def is_exploratory(self) -> bool:
        """Whether verdicts after the change are exploratory.

        Adding or removing tuning does not affect existing results; other trials or ranges change the best recipes.
        """
        is_new = self.what == _TUNING and not (self.before and self.after)
        return self.what != "question" and not is_new


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The planned analysis of a study.

    Attributes:
        contrasts: variants with their baselines; none of a search, which selects its variants later.
        baseline: a variant or a level, as in `Design`.
        margin: equivalence margin in the metric's unit.
        replicates: of each variant; the maximum with interim analyses.
        baseline_replicates: of baselines if they have more, otherwise 0.
        analyses: number of replicates at each interim analysis; empty for a single analysis.
        confirm: maximum number of variants that a search confirms, otherwise 0.
        tuning: text of `Tuning.text`; empty without tuning.
        protocol: options that all cells share.
        commit: of the code, or its version.
        command: the command line.
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
        """Returns the declaration of a design; `analyses` as the attribute."""
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
        """Returns a declaration from its stored form."""
        pairs = tuple((variant, baseline) for variant, baseline in content["contrasts"])
        return cls(**{**content, "contrasts": pairs, "analyses": tuple(content["analyses"])})

    @property
    def variants(self) -> tuple[str, ...]:
        """The distinct variants of all contrasts, including baselines."""
        return tuple(dict.fromkeys(name for pair in self.contrasts for name in reversed(pair)))

    @property
    def margin_text(self) -> str:
        """The margin with its unit."""
        return METRICS[self.metric].quantity(self.margin)

    @property
    def replicates_text(self) -> str:
        """The number of replicates, in words."""
        if self.analyses:
            return f"auto ({self.analyses[0]} to {self.replicates})"
        return (
            f"{self.replicates} (baselines {self.baseline_replicates})"
            if self.baseline_replicates
            else f"{self.replicates}"
        )

    def with_replicates_of(self, other: Declaration) -> Declaration:
        """Returns a copy with the replicates and interim analyses of another declaration."""
        return replace(
            self,
            replicates=other.replicates,
            baseline_replicates=other.baseline_replicates,
            analyses=other.analyses,
        )

    def changes_since(self, earlier: Declaration) -> list[Change]:
        """Lists the changes from an earlier declaration; the protocol cannot change within a study."""
        earlier_margin = f"{earlier.margin:g}" if earlier.metric == self.metric else earlier.margin_text
        items = [
            ("question", earlier.question, self.question),
            ("metric", earlier.metric, self.metric),
            ("baseline", earlier.baseline, self.baseline),
            (_REPLICATES, earlier.replicates_text, self.replicates_text),
            ("confirmed picks", str(earlier.confirm), str(self.confirm)),
            (_TUNING, earlier.tuning, self.tuning),
        ]
        changes = [Change(what, before, after) for what, before, after in items if before != after]
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
    """The first and the latest declaration of a study, and all changes in order."""

    first: Declaration
    latest: Declaration
    changes: tuple[Change, ...] = ()

    @classmethod
    def begun(cls, declared: Declaration) -> History:
        """Returns the history of a study with a single declaration."""
        return cls(declared, declared)

    @classmethod
    def stored(cls, content: Mapping[str, Any] | None) -> History | None:
        """Returns a history from its stored form; None if the study declared nothing before its first cell."""
        if content is None:
            return None
        changes = tuple(Change(**change) for change in content["changes"])
        return cls(Declaration.stored(content["first"]), Declaration.stored(content["latest"]), changes)

    def as_stored(self) -> dict[str, Any]:
        """Returns the history as JSON types."""
        return dict(json.loads(json.dumps(asdict(self))))

    def then(self, asked: Declaration) -> History:
        """Returns the history with the changes to a new declaration, at its time."""
        changes = [replace(change, time=asked.time) for change in asked.changes_since(self.latest)]
        return History(self.first, asked, (*self.changes, *changes)) if changes else self

    def deviations(self, asked: Declaration) -> list[Change]:
        """Lists the differences between a declaration and the first one, with their recorded times.

        The number of replicates is that of the latest declaration, which has been trained.
        """
        times = {(change.what, change.after): change.time for change in self.changes}
        differences = asked.with_replicates_of(self.latest).changes_since(self.first)
        return [replace(change, time=times.get((change.what, change.after), "")) for change in differences]


def keeps_replicates(asked: Declaration, latest: Declaration, done: Iterable[tuple[str, int]]) -> bool:
    """Returns whether fewer replicates than declared are requested of a complete study, which changes nothing.

    `done` are the variants and replicates whose cells have ended.
    """
    if asked.replicates >= latest.replicates:
        return False
    if latest.analyses:
        return True
    cells = set(done)
    return all((name, number) in cells for name in latest.variants for number in range(latest.replicates))


def _named(pairs: Sequence[tuple[str, str]]) -> str:
    first = ", ".join(f"{variant} against {baseline}" for variant, baseline in pairs[:_NAMED])
    return first if len(pairs) <= _NAMED else f"{first} and {count(len(pairs) - _NAMED, 'other')}"
