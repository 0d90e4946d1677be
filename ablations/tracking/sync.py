"""`analyze sync=true`: sends MLflow the missing cells of a stored study."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ablations.analysis.study import StudyAnalysis
from ablations.common.console import print_path, print_text
from ablations.common.errors import UsageError
from ablations.common.parts import Parts
from ablations.common.wording import count
from ablations.reporting.text.declaration import verdicts_tag
from ablations.storage.lock import claimed
from ablations.storage.paths import storage_url
from ablations.storage.study import open_store
from ablations.tracking.base import status_of
from ablations.tracking.destination import destination_of

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.reporting.report import Report
    from ablations.tracking.tracker import Tracker


@contextmanager
def open_mirror(analysis: StudyAnalysis) -> Iterator[Tracker]:
    """Locks the study, which has one writer, and connects to MLflow.

    Raises:
        UsageError: if tracking is off, another process has locked the study, or MLflow does not respond.
    """
    from ablations.tracking.tracker import Tracker

    config, design = analysis.config, analysis.design
    if not config.tracking.enabled:
        raise UsageError("sync", "true", "sends a study to MLflow, and tracking.enabled is false")
    with claimed(analysis.folder, storage_url(config)):
        yield Tracker(destination_of(config, design.study), design, analysis.attributes["identity"]["id"])


def sync_mirror(analysis: StudyAnalysis, tracker: Tracker, report: Report | None, console: Console) -> Parts:
    """Sends missing cells and a new report, and prints how many; returns the parts of the report that failed.

    Raises:
        UsageError: if MLflow stops responding.
    """
    store = open_store(storage_url(analysis.config), analysis.design.study, create=False)
    if analysis.costs:
        tracker.costs(analysis.costs.metrics)
    tracker.sync(store.outcomes(analysis.tried), analysis.attributes["data_fingerprint"])
    status = status_of(set(analysis.results.pending["state"]))
    folder, note = (report.folder, report.opening) if report else (None, "")
    parts = Parts()
    tag = parts.make("tag of the verdicts in MLflow", "", verdicts_tag, analysis)
    tracker.end(status, folder, note, tag, parts)
    sent = count(tracker.sent, "cell")
    if tracker.lost:
        raise tracker.destination.refusal(f"{tracker.lost} after {sent}; the same command sends the rest")
    print_text(console, f"Sent to MLflow: {sent} that it lacked.")
    print_path(console, "Dashboard", tracker.command())
    return parts
