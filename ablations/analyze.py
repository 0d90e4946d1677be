"""`python -m ablations.analyze`: makes tables, figures and report from what is stored; trains nothing, needs no GPU."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ablations import cli
from ablations.reporting.figures import FIGURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from ablations.analysis.study import Findings
    from ablations.config import Config
    from ablations.reporting.report import Report
    from ablations.tracking.tracker import Tracker

PURPOSE = "Makes a study's tables, figures and report from what is stored; works while the study is still running."


def analyze(config: Config, command: str) -> int:
    """Reports a stored study, or draws the figures that were asked for; returns 0."""
    from contextlib import ExitStack

    from rich.markup import escape

    from ablations.analysis.study import read_findings
    from ablations.execution.progress import make_console
    from ablations.reporting.figures import chosen_figures

    names, everything = chosen_figures(config.figures)
    findings = read_findings(config, f"`{_run_command(command)}` makes it")
    console = make_console()
    console.print(f"[bold]{findings.design.study}[/]: {escape(findings.design.question)}", soft_wrap=True)
    with ExitStack() as stack:
        mirror = stack.enter_context(_mirror_of(findings)) if config.sync else None
        report = None
        if everything:
            report = report_study(findings, console, names)
        else:
            _draw(findings, names, console)
        if mirror is not None:
            _sync(findings, mirror, report, console)
    return 0


@contextmanager
def _mirror_of(findings: Findings) -> Iterator[Tracker]:
    """Holds the study, which has one writer, and finds out whether MLflow answers."""
    from ablations.common.errors import UsageError
    from ablations.storage.folder import artifacts_folder, storage_url, tracking_uri
    from ablations.storage.lock import claimed
    from ablations.tracking.tracker import Tracker

    config, design = findings.config, findings.design
    if not config.tracking.enabled:
        raise UsageError("sync", "true", "sends a study to MLflow, and tracking.enabled is false")
    with claimed(findings.folder, storage_url(config)):
        artifacts = artifacts_folder(config, design.study)
        yield Tracker(tracking_uri(config), design, findings.attributes["identity"]["id"], artifacts)


def _sync(findings: Findings, tracker: Tracker, report: Report | None, console: Console) -> None:
    """Sends MLflow what it has missed, and says how much that was."""
    from ablations.common.errors import UsageError
    from ablations.common.urls import hide_passwords
    from ablations.common.wording import count
    from ablations.storage.folder import storage_url
    from ablations.storage.study import open_store

    store = open_store(storage_url(findings.config), findings.design.study, create=False)
    tracker.sync(store.outcomes(findings.design), findings.attributes["data_fingerprint"])
    left = set(findings.results.unfinished["state"]) - {"pruned", "diverged"}
    status = "FAILED" if "failed" in left else "KILLED" if left else "FINISHED"
    if report is not None:
        tracker.end(status, report.folder, report.opening)
    else:
        tracker.end(status)
    sent = count(tracker.sent, "cell")
    if tracker.lost:
        reason = f"MLflow stopped answering after {sent}: {tracker.lost}; the same command sends the rest"
        raise UsageError("tracking.uri", hide_passwords(tracker.uri), reason)
    console.print(f"MLflow was sent {sent} that it did not have.", soft_wrap=True)
    console.print(f"Dashboard:  {tracker.command()}", soft_wrap=True, markup=False)


def report_study(findings: Findings, console: Console, figures: Sequence[str] = tuple(FIGURES)) -> Report:
    """Writes a study's report and prints it; `run` ends with this too."""
    from ablations.reporting.page.page import write_page
    from ablations.reporting.report import make_report, print_report
    from ablations.reporting.tables.export import write_tables

    # What is there by now, modules and results, is there to stay: whoever looks for garbage need not look at it again,
    # which is a fifth of the time that a report of 10,000 cells takes.
    gc.collect()
    gc.freeze()
    report = make_report(findings, figures)
    page = write_page(report, write_tables(findings, report.sections))
    print_report(console, report)
    if findings.missing:
        console.print(f"{findings.missing} The report says why.", soft_wrap=True, markup=False)
    console.print(f"Report:     {report.path}", soft_wrap=True, markup=False)
    console.print(f"Page:       {page}", soft_wrap=True, markup=False)
    pictures = [str(drawn.png) for drawn in report.gallery.drawn]
    if pictures:
        console.print(f"Figures:    {', '.join(pictures)}", soft_wrap=True, markup=False)
    return report


def _run_command(command: str) -> str:
    """Returns the command that makes what an `analyze` command reads."""
    import shlex

    words = [word for word in shlex.split(command) if not word.startswith(("figures=", "sync="))]
    return shlex.join(words).replace("ablations.analyze", "ablations.run", 1)


def _draw(findings: Findings, names: Sequence[str], console: Console) -> None:
    """Draws figures by name; those that the study does not have are an error, after the others are drawn."""
    from ablations.common.errors import UsageError
    from ablations.common.files import refusals_explained
    from ablations.reporting.figures.gallery import draw_figures
    from ablations.storage.folder import GO_ON

    with refusals_explained("results_dir", findings.folder, GO_ON, names_file=True):
        gallery = draw_figures(findings, names)
    for drawn in gallery.drawn:
        console.print(f"{drawn.name + ':':17} {', '.join(map(str, drawn.files))}", soft_wrap=True, markup=False)
    for name, reason in gallery.left_out.items():
        raise UsageError("figures", name, f"cannot be drawn of this study: {reason}")


if __name__ == "__main__":
    sys.exit(cli.main("analyze", PURPOSE, analyze))
