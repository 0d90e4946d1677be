"""`python -m ablations.analyze`: makes tables, figures and report from what is stored; trains nothing, needs no GPU."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from rich.console import Console

    from ablations.config import Config
    from ablations.design import Design
    from ablations.report import Report
    from ablations.study import StudyStore

PURPOSE = "Makes a study's table, figures and report from what is stored; works while the study is still running."


def analyze(config: Config, command: str) -> int:
    """Reports a stored study; returns 0."""
    del command
    from rich.markup import escape

    from ablations.design import make_design
    from ablations.folder import storage_url, study_folder
    from ablations.progress import make_console
    from ablations.study import open_store

    study_folder(config)
    store = open_store(storage_url(config), config.study, create=False)
    design = make_design(config, stored=store.protocol)
    store.check(design, f"it was made by `{store.attributes.get('command')}`, and `analyze` needs the same options")
    console = make_console()
    console.print(f"[bold]{design.study}[/]: {escape(design.question)}", soft_wrap=True)
    report_study(config, design, store, console)
    return 0


def report_study(config: Config, design: Design, store: StudyStore, console: Console) -> Report:
    """Writes a study's report and prints it; `run` ends with this too."""
    from ablations.folder import study_folder
    from ablations.report import make_report, print_report
    from ablations.results import collect

    stored = store.cells()
    if design.is_search:
        from ablations.search import Maker, with_found_variants

        design = with_found_variants(design, stored, Maker(config))
    results = collect(design, stored)
    report = make_report(design, results, store.attributes, study_folder(config))
    print_report(console, report)
    unfinished = int((results.unfinished["state"] != "pruned").sum())
    if unfinished:
        console.print(f"Cells that are not finished: {unfinished}; the report names them.")
    console.print(f"Report:     {report.path}", soft_wrap=True, markup=False)
    pictures = [str(path) for path in report.figures if path.suffix == ".png"]
    if pictures:
        console.print(f"Figures:    {', '.join(pictures)}", soft_wrap=True, markup=False)
    return report


if __name__ == "__main__":
    sys.exit(cli.main("analyze", PURPOSE, analyze))
