"""A cell as the store knows it, read from the attempts at it.

Every attempt at a cell is one Optuna trial:

| trial                     | state of the cell | ended by    | trained again by a later run   |
| RUNNING                   | running           |             | yes, once its driver has gone  |
| COMPLETE                  | finished          | `finish`    | no                             |
| PRUNED                    | pruned            | `finish`    | no                             |
| FAIL, diverged            | diverged          | `fail`      | no: it would diverge again     |
| FAIL, with another reason | failed            | `fail`      | yes                            |
| FAIL, without a reason    | interrupted       | `interrupt` | yes                            |

A trial that has an outcome which cannot be read (a damaged database, an edited value) is `unreadable`, whatever its
state, and its cell is trained again by a later run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ablations.common.parts import reason_of
from ablations.design import Split
from ablations.training.events import DIVERGED


class CellState(StrEnum):
    """What became of the latest attempt at a cell."""

    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNREADABLE = "unreadable"

    @property
    def is_done(self) -> bool:
        """Whether a cell in this state needs no training any more."""
        return self in (CellState.FINISHED, CellState.PRUNED, CellState.DIVERGED)


@dataclass(frozen=True)
class StoredCell:
    """The attempt at a cell that counts.

    Attributes:
        key: of the cell; the same for all attempts.
        variant: the name of its variant when it was trained.
        levels: those of the factors that made the variant; empty for a variant given by name.
        number: of that attempt's trial.
        replicate: its number; of a trial of tuning, the number of the trial.
        split: the images that it was evaluated on.
        outcome: of a finished cell its result, of a pruned one its epochs; None otherwise.
        failed_as: the kind of failure (`ablations.training.events`), beside `failure`, the reason; None otherwise.
        recipe: what was tuned for it; empty under the study's own recipe.
        tuning: the id of the tuning that it is a trial of; otherwise empty.
    """

    key: str
    variant: str
    network: dict[str, Any]
    levels: dict[str, Any]
    replicate: int
    state: CellState
    number: int
    split: Split = Split.TEST
    outcome: Mapping[str, Any] | None = None
    failed_as: str | None = None
    failure: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    tuning: str = ""

    @property
    def is_open(self) -> bool:
        """Whether the attempt has not come to its end."""
        return self.state is CellState.RUNNING


class StoredOutcome(Mapping[str, Any]):
    """An outcome as it is stored, as JSON; decoded when it is read, as those of thousands of cells fill the memory."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getitem__(self, name: str) -> Any:
        return _decoded(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_decoded(self._text))

    def __len__(self) -> int:
        return len(_decoded(self._text))


@lru_cache(maxsize=1)  # whoever reads an outcome reads several of its parts
def _decoded(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def stored_cell(trial: FrozenTrial) -> StoredCell:
    """Reads an attempt at a cell from its trial."""
    known = trial.user_attrs
    failure = known.get("failure", {})
    unreadable = _reason_against(known["outcome"]) if "outcome" in known else None
    return StoredCell(
        key=known["cell"],
        variant=known["variant"],
        network=known["network"],
        levels=known["levels"],
        replicate=known["replicate"],
        state=CellState.UNREADABLE if unreadable else _state(trial.state, failure.get("kind")),
        number=trial.number,
        split=Split(known.get("split", Split.TEST)),
        recipe=known.get("recipe", {}),
        tuning=known.get("tuning", ""),
        outcome=StoredOutcome(known["outcome"]) if "outcome" in known and not unreadable else None,
        failed_as=failure.get("kind"),
        failure=unreadable or failure.get("reason"),
    )


def _reason_against(outcome: str) -> str | None:
    """Returns why a stored outcome cannot be read; None if it can."""
    try:
        result = _decoded(outcome)["result"]
    except (ValueError, TypeError, KeyError) as error:
        return f"the stored outcome cannot be read ({reason_of(error)})"
    return None if isinstance(result, dict) else "the stored outcome cannot be read (it has no result)"


def latest_attempts(attempts: Iterable[StoredCell]) -> dict[str, StoredCell]:
    """Returns the attempt that counts of each cell, by its key: one that is done, or else the last."""
    latest: dict[str, StoredCell] = {}
    for attempt in attempts:
        earlier = latest.get(attempt.key)
        if earlier is None or attempt.state.is_done or not earlier.state.is_done:
            latest[attempt.key] = attempt
    return latest


def _state(state: TrialState, failed_as: str | None) -> CellState:
    if state == TrialState.FAIL:
        if failed_as is None:
            return CellState.INTERRUPTED
        return CellState.DIVERGED if failed_as == DIVERGED else CellState.FAILED
    return {TrialState.COMPLETE: CellState.FINISHED, TrialState.PRUNED: CellState.PRUNED}.get(state, CellState.RUNNING)
