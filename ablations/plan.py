"""`python -m ablations.plan`: says before a study what it will cost, and which differences it will detect."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from ablations.analysis.results import Results
    from ablations.config import Config
    from ablations.design import Design
    from ablations.stats import Looks

PURPOSE = "Checks every cell of a study, estimates what they cost, and says which differences the study will detect."
_PROBED = 1.0  # seconds of training steps of a variant
_HEADERS = ("variant", "cells", "to train", "seconds a cell", "peak MiB", "parameters", "by")


def plan(config: Config, command: str) -> int:
    """Plans a study; returns 0, or what its pilot returned where that did not end well."""
    from dataclasses import replace

    from rich.markup import escape

    from ablations.common.errors import UsageError
    from ablations.common.metrics import METRICS
    from ablations.common.resolve import resolve_threads
    from ablations.design import make_design
    from ablations.execution.estimate import estimate_costs, knowledge, wanted
    from ablations.execution.launchers.select import check_launcher, make_launcher
    from ablations.execution.progress import make_console
    from ablations.reporting.tables.render import markdown_table, print_table
    from ablations.storage.folder import study_folder

    design, pilot = make_design(config), config.plan.pilot
    check_launcher(config.launcher)
    console = make_console()
    if pilot:
        most = design.replicates_max or design.replicates
        if pilot > most:
            raise UsageError("plan.pilot", pilot, f"is more than the {most} replicates of the study")
        if design.is_search:
            raise UsageError("plan.pilot", pilot, "has no effect on a search, which gives no verdicts")
        from ablations.run import run

        _known(config, design)  # what cannot be planned is said before anything is trained
        first = replace(config, replicates=pilot, replicates_max=type(config).replicates_max)
        status = run(first, command)
        if status:
            return status
    folder = study_folder(config)
    design, results, looks, finished = _known(config, design)
    console.print(f"[bold]{design.study}[/]: {escape(design.question)}", soft_wrap=True)
    replicates = looks.sizes[0] if looks else design.replicates
    given_up = set(results.unfinished["variant"][results.unfinished["state"] == "pruned"])
    missing = {
        variant.name: sum((variant.name, replicate) not in finished for replicate in range(replicates))
        if variant.name not in given_up
        else 0
        for variant in design.variants
    }
    picked = _picked(config, design) * replicates
    threads = resolve_threads(config.threads, design.protocol["device"], config.data.side)
    with make_launcher(config.launcher, design, config.data, console, config.measure, threads) as launcher:
        estimate = estimate_costs(design, results.cells, launcher, missing, _PROBED, picked)
    rows = [
        [
            cost.variant,
            str(replicates),
            str(missing[cost.variant]),
            "–" if math.isnan(cost.seconds) else f"{cost.seconds:.3g} ({cost.low:.3g} to {cost.high:.3g})",
            METRICS["peak_memory_mib"].format(cost.peak_memory_mib),
            f"{cost.parameters:,}",
            cost.by,
        ]
        for cost in estimate.costs
    ]
    cells = len(design.variants) * replicates + picked
    sentences = [
        f"All {len(design.variants)} variants fit their networks; {estimate.missing} of {cells} cells are to be "
        f"trained on {design.protocol['device']} in {design.protocol['train']['precision']}.",
        estimate.sentence,
        *([_looks_sentence(design, looks)] if looks else []),
        knowledge(design, results.cells, looks),
        *wanted(design, results.cells, config.plan.effect or design.margin, estimate.costs),
    ]
    print_table(console, _HEADERS, rows)
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, markup=False)
    lines = [f"# Plan of {design.study}", "", design.question, "", *(f"- {sentence}" for sentence in sentences), ""]
    text = "\n".join([*lines, *markdown_table(_HEADERS, rows), "", "```", command, "```", ""])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.md").write_text(text)
    except OSError as error:
        raise UsageError("results_dir", folder, f"cannot be written: {error.strerror or error}") from None
    console.print(f"Plan:       {folder / 'plan.md'}", soft_wrap=True, markup=False)
    return 0


def _known(config: Config, design: Design) -> tuple[Design, Results, Looks | None, set[tuple[str, int]]]:
    """Returns the design with what is stored of it: results, looks, and which variants' replicates are finished."""
    from ablations.analysis.results import collect
    from ablations.common.errors import UsageError
    from ablations.execution.schedules.sequential import looks_of, planned_looks
    from ablations.storage.folder import storage_url
    from ablations.storage.study import open_store

    try:
        store = open_store(storage_url(config), design.study, create=False)
    except UsageError as error:
        if error.option != "study":
            raise
        store = None  # nothing is stored yet
    if store is not None and store.is_new and not store.cells():
        store = None  # a run made it and went no further
    stored = []
    if store is not None:
        store.check(design, f"to plan another study, add study={design.study}-2 (or any name)")
        stored = store.cells()
    if design.is_search:
        from ablations.analysis.picked import Maker, with_found_variants

        design = with_found_variants(design, stored, Maker(config))
    results = collect(design, stored)
    looks = None
    if design.replicates_max:
        looks = looks_of(design, store) if store is not None else planned_looks(design)
    finished = zip(results.cells["variant"], results.cells["replicate"], strict=True)
    return design, results, looks, {(str(variant), int(replicate)) for variant, replicate in finished}


def _picked(config: Config, design: Design) -> int:
    """Counts the variants that a search will still pick."""
    found = sum(bool(variant.levels) for variant in design.variants)
    size = math.prod(len(levels) for levels in design.factors.values())
    return max(0, min(config.sweep.trials, size) - found) if design.is_search else 0


def _looks_sentence(design: Design, looks: Looks) -> str:
    most = len(design.variants) * looks.sizes[-1]
    return (
        f"That is up to the first look. Looks are at {', '.join(map(str, looks.sizes))} replicates; if nothing is "
        f"decided before the last, there are {most} cells."
    )


if __name__ == "__main__":
    sys.exit(cli.main("plan", PURPOSE, plan))
