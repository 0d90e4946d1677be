"""The interface of a study's mirror for browsing, which does nothing if tracking is off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.common.parts import RAISE, Parts

if TYPE_CHECKING:
    from ablations.design import Cell
    from ablations.training.events import Epoch


def status_of(pending: Collection[str]) -> str:
    """Returns the status of a study in MLflow; `pending` has the states of its cells without a result."""
    return "FAILED" if "failed" in pending else "KILLED" if pending else "FINISHED"


class StudyMirror:
    """Receives the events of a study and ignores them; `Tracker` writes them to MLflow.

    No method raises or waits for a store that does not respond. `sent` is the number of finished cells written.
    """

    sent = 0

    @property
    def lost(self) -> str | None:
        """Why the mirror is incomplete, as a clause; None while the store responds."""
        return None

    @property
    def complete(self) -> bool:
        """Whether the study was ended as finished, and not opened since."""
        return True

    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the study before training; `fingerprint` is of the data set, `commit` of the code."""

    def costs(self, known: Mapping[str, Mapping[str, float]]) -> None:
        """Receives costs by variant and metric, for cells that finish from now on."""

    def update_costs(self, cells: Sequence[Cell]) -> None:
        """Updates the costs of finished cells."""

    def start_cell(self, cell: Cell, commit: str | None) -> None:
        """Opens a cell at the start of its training."""

    def epoch(self, cell: Cell, epoch: Epoch) -> None:
        """Records an epoch of a cell in training."""

    def finish_cell(self, cell: Cell, outcome: Mapping[str, Any]) -> None:
        """Completes a finished cell."""

    def fail_cell(self, cell: Cell, reason: str) -> None:
        """Ends a failed cell."""

    def release_cell(self, cell: Cell) -> None:
        """Ends an interrupted cell, which a later run resumes."""

    def sync(self, finished: Sequence[tuple[Cell, Mapping[str, Any]]], fingerprint: str) -> None:
        """Completes the mirror of cells that are finished in the store but not, or not completely, mirrored."""

    def end(
        self, status: str, folder: Path | None = None, note: str = "", verdicts: str = "", parts: Parts = RAISE
    ) -> None:
        """Ends the study as `FINISHED`, `FAILED` or `KILLED`.

        `folder` has its files, `note` is its description in Markdown, and `verdicts` says whether they are declared or
        exploratory. `parts` receives files that cannot be sent although the store responds.
        """

    def command(self) -> str:
        """Returns the command or address that opens the mirror; empty if there is none."""
        return ""
