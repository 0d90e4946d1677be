"""Stored cells, read from the trials of their attempts.

Every attempt at a cell is one Optuna trial:

| trial                     | state of the cell | ended by    | trained again by a later run   |
| RUNNING                   | running           |             | yes, after its driver ended    |
| COMPLETE                  | finished          | `finish`    | no                             |
| PRUNED                    | pruned            | `finish`    | no                             |
| FAIL, diverged            | diverged          | `fail`      | no: it would diverge again     |
| FAIL, with another reason | failed            | `fail`      | yes                            |
| FAIL, without a reason    | interrupted       | `interrupt` | yes                            |

A trial whose outcome cannot be read (a damaged database, an edited value) is `unreadable` in any state, and a later
run trains its cell again.
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
    """The state of the latest attempt at a cell."""

    RUNNING = "running"
    FINISHED = "finished"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNREADABLE = "unreadable"

    @property
    def is_done(self) -> bool:
        """Whether a cell in this state needs no more training."""
        return self in (CellState.FINISHED, CellState.PRUNED, CellState.DIVERGED)


@dataclass(frozen=True)
class StoredCell:
    """The effective attempt at a cell.

    Attributes:
        key: the cell's key, equal for all attempts.
        variant: the name of its variant at training time.
        levels: the variant's factor levels; empty for a variant given by name.
        number: of the attempt's trial.
        replicate: its number; for a tuning trial, the trial's number.
        split: the images that it was evaluated on.
        outcome: the result of a finished cell or the epochs of a pruned one; None otherwise.
        failed_as: the kind of failure (`ablations.training.events`), with its reason in `failure`; None otherwise.
        recipe: tuned options; empty under the study's recipe.
        tuning: id of the tuning that this is a trial of; otherwise empty.
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
        """Whether the attempt has not ended."""
        return self.state is CellState.RUNNING


class StoredOutcome(Mapping[str, Any]):
    """A stored outcome in JSON, decoded on access, because thousands of decoded outcomes would fill the memory."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __getitem__(self, name: str) -> Any:
        return _decoded(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_decoded(self._text))

    def __len__(self) -> int:
        return len(_decoded(self._text))


@lru_cache(maxsize=1)  # callers read several parts of one outcome in sequence
def _decoded(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def stored_cell(trial: FrozenTrial) -> StoredCell:
    """Reads an attempt at a cell from its trial."""
    attributes = trial.user_attrs
    failure = attributes.get("failure", {})
    unreadable = _reason_against(attributes["outcome"]) if "outcome" in attributes else None
    return StoredCell(
        key=attributes["cell"],
        variant=attributes["variant"],
        network=attributes["network"],
        levels=attributes["levels"],
        replicate=attributes["replicate"],
        state=CellState.UNREADABLE if unreadable else _state(trial.state, failure.get("kind")),
        number=trial.number,
        split=Split(attributes.get("split", Split.TEST)),
        recipe=attributes.get("recipe", {}),
        tuning=attributes.get("tuning", ""),
        outcome=StoredOutcome(attributes["outcome"]) if "outcome" in attributes and not unreadable else None,
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
    """Returns the effective attempt of each cell by its key: one that is done, otherwise the last."""
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
