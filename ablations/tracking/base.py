"""What mirrors a study for people to browse; where tracking is off, nothing does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.common.parts import RAISE, Parts

if TYPE_CHECKING:
    from ablations.design import Cell
    from ablations.training.events import Epoch


def status_of(pending: Collection[str]) -> str:
    """Returns the status of a study in MLflow; `pending` has the states of its cells that have no result yet."""
    return "FAILED" if "failed" in pending else "KILLED" if pending else "FINISHED"


class StudyMirror:
    """Receives what happens in a study, and does nothing about it; `Tracker` writes it to MLflow.

    No method raises, or waits for a store that does not answer. `sent` is how many finished cells were written.
    """

    sent = 0

    @property
    def lost(self) -> str | None:
        """Why the mirror is incomplete, as a clause: the store does not answer; None while all is well."""
        return None

    @property
    def complete(self) -> bool:
        """Whether the study was closed as finished, and not opened since."""
        return True

    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the study before cells are trained; `fingerprint` is of the data set, `commit` of the code."""

    def costs(self, known: Mapping[str, Mapping[str, float]]) -> None:
        """Receives what variants cost, by name and metric, for the cells that are finished from now on."""

    def update_costs(self, cells: Sequence[Cell]) -> None:
        """Receives finished cells whose costs have changed."""

    def start_cell(self, cell: Cell, commit: str | None) -> None:
        """Opens a cell that is about to be trained."""

    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Notes an epoch of a cell that is being trained."""

    def finish_cell(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Completes a finished cell."""

    def fail_cell(self, cell: Cell, reason: str) -> None:
        """Closes a cell that could not be trained."""

    def release_cell(self, cell: Cell) -> None:
        """Closes a cell that was interrupted; it is taken up again."""

    def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
        """Completes the mirror of cells that are finished in the store and were not mirrored, or not wholly."""

    def end(
        self, status: str, folder: Path | None = None, note: str = "", verdicts: str = "", parts: Parts = RAISE
    ) -> None:
        """Closes the study as `FINISHED`, `FAILED` or `KILLED`.

        With the folder of its files, a note in Markdown, and whether its verdicts are `declared` or exploratory.
        `parts` receives the files that cannot be sent although the store answers.
        """

    def command(self) -> str:
        """Returns the command, or the address, that opens the mirror; empty where there is none."""
        return ""
