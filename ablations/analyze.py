"""`python -m ablations.analyze`: creates tables, figures and report from stored results, without training or a GPU."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from ablations import cli
from ablations.common.errors import UsageError

if TYPE_CHECKING:
    from ablations.config import Config
    from ablations.config.multiverse import Multiverse

PURPOSE = "Creates the tables, figures and report of a study from the stored results, also while the study is running."


def analyze(config: Config, command: str) -> int:
    """Reports a stored study, or draws only the requested figures; returns 0, or 1 if a part cannot be made."""
    from ablations.analysis.load import load_configured
    from ablations.common.console import make_console, print_path, print_text
    from ablations.common.parts import Parts
    from ablations.export import check_exports, export_study
    from ablations.reporting.figures import chosen_figures
    from ablations.reporting.text.progress import WRITING_REPORT, drawing_notice
    from ablations.tracking import follow_results
    from ablations.tracking.sync import open_mirror, sync_mirror

    names, everything = chosen_figures(config.figures, config.against)
    check_exports(config, trains=False)
    analysis = load_configured(config, f"create it with `{_run_command(command)}`")
    if config.against not in ("", None):
        _ = analysis.predictions  # raises a UsageError for variants without kept predictions
    console = make_console()
    print_text(console, analysis.design.question, title=analysis.design.study)
    print_text(console, WRITING_REPORT if everything else drawing_notice(names))
    # Importing matplotlib takes a second; errors of the command line are reported without it.
    from ablations.reporting.publish import add_missing, report_figures, report_study

    follow_results(config)
    with open_mirror(analysis) if config.sync else nullcontext() as mirror:
        report = report_study(analysis, console, names) if everything else None
        parts = report.parts if report else report_figures(analysis, console, names)
        if mirror is not None:
            add_missing(console, analysis.folder, parts, sync_mirror(analysis, mirror, report, console))
    if config.export:
        exports = Parts()
        print_path(console, "Exports", *export_study(analysis, config.export, exports))
        add_missing(console, analysis.folder, parts, exports)
    return 1 if parts.missing else 0


def analyze_several(multiverse: Multiverse) -> int:
    """Reports on the stored studies of several protocols; returns 0, or 1 if a part cannot be made."""
    from ablations.analysis.multiverse import load_composed
    from ablations.common.console import make_console
    from ablations.common.parts import Parts
    from ablations.tracking import follow_results

    config = multiverse.config
    if config.sync:
        raise UsageError(
            "sync", "true", "sends a single study to MLflow: give the options of that study without recipes"
        )
    if config.figures != "all":
        raise UsageError("figures", config.figures, "draws figures of a single study: give its options without recipes")
    if config.against:
        raise UsageError(
            "against", config.against, "compares variants of a single study: give its options without recipes"
        )
    if config.export:
        raise UsageError("export", config.export, "exports a single study: give its options without recipes")
    # A report names the `run` commands of its studies, also when `analyze` writes it.
    protocols = tuple(replace(protocol, command=_run_command(protocol.command)) for protocol in multiverse.protocols)
    multiverse = replace(multiverse, command=_run_command(multiverse.command), protocols=protocols)
    analysis = load_composed(multiverse, f"create them with `{multiverse.command}`")
    follow_results(config)
    from ablations.reporting.multiverse import report_multiverse

    parts = Parts()
    report_multiverse(analysis, make_console(), parts)
    return 1 if parts.missing else 0


def _run_command(command: str) -> str:
    """Returns the `run` command that creates the study that an `analyze` command reads."""
    options_of_analyze = ("figures=", "against=", "sync=", "export=")
    words = [word for word in shlex.split(command) if not word.startswith(options_of_analyze)]
    return shlex.join(words).replace("ablations.analyze", "ablations.run", 1)


if __name__ == "__main__":
    sys.exit(cli.main("analyze", PURPOSE, analyze, act_on_several=analyze_several))
