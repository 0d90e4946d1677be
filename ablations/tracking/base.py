"""What mirrors a study for people to browse: MLflow, or nothing where tracking is off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ablations.storage.paths import artifacts_folder, tracking_uri

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.config import Config
    from ablations.design import Cell, Design
    from ablations.training.events import Epoch


class StudyMirror(Protocol):
    """Receives what happens in a study. No method raises, or waits for a store that does not answer."""

    @property
    def lost(self) -> str | None:
        """Why the mirror is incomplete: the store does not answer; None while all is well."""

    @property
    def sent(self) -> int:
        """How many finished cells were written."""

    @property
    def complete(self) -> bool:
        """Whether the study was closed as finished, and not opened since."""

    def begin(self, fingerprint: str, commit: str | None) -> None:
        """Opens the study before cells are trained; `fingerprint` is of the data set, `commit` of the code."""

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
        """Completes the mirror of cells that are finished in the store and were not mirrored, or not wholly.

        Args:
            finished: the cells with their outcomes.
            fingerprint: of the data set that they were trained on.
        """

    def end(self, status: str, folder: Path | None = None, note: str = "") -> None:
        """Closes the study.

        Args:
            status: `FINISHED`, `FAILED` or `KILLED`.
            folder: of the study's files.
            note: a description of the study, in Markdown.
        """

    def command(self) -> str:
        """Returns the command, or the address, that opens the mirror; empty where there is none."""


class NoTracker:
    """The mirror of a study that is not tracked: accepts every call of a `StudyMirror` and does nothing."""

    lost: str | None = None
    sent = 0
    complete = True

    def _ignore(self, *args: object, **kwargs: object) -> None:
        pass

    begin = start_cell = epoch = finish_cell = fail_cell = release_cell = sync = end = _ignore

    def command(self) -> str:
        """Returns nothing: there is no dashboard."""
        return ""


def open_tracker(config: Config, design: Design, study_id: str, console: Console) -> StudyMirror:
    """Opens the mirror of a study; MLflow is imported only where tracking is enabled.

    Args:
        config: with `tracking`.
        design: the study.
        study_id: tells it from other people's studies of its name on the same server.
        console: is told when a new store is made, which takes some seconds.

    Raises:
        UsageError: if the store does not answer.
    """
    if not config.tracking.enabled:
        return NoTracker()
    uri = tracking_uri(config)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        console.print("Making the MLflow store, once; this takes some seconds.")
    from ablations.tracking.tracker import Tracker

    return Tracker(uri, design, study_id, artifacts_folder(config, design.study))
