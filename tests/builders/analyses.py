"""Analyses of studies with made-up cells, and what is read of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.analysis.results import collect
from ablations.analysis.study import StudyAnalysis
from ablations.common.metrics import CELL_METRICS, EPOCH_METRICS
from ablations.config.compose import compose_config
from ablations.design import make_design
from ablations.design.declaration import Declaration, History
from tests.builders.cells import stored_cell

GROUPS = ("sweep.factors.attention.groups=[2,4]",)


def spread_top1(variant: int, replicate: int) -> float:
    """An accuracy that differs between variants and replicates, and whose differences do too."""
    return 60 + variant + (0.5 if replicate % 2 else -0.5) * (1 + variant)


def study_analysis(
    folder: Path,
    overrides: Sequence[str] = GROUPS,
    replicates: int = 2,
    finished: int | None = None,
    top1: Callable[[int, int], float] = spread_top1,
    names: Sequence[str] = (),
    failure: str | None = None,
    **changes: Any,
) -> StudyAnalysis:
    """A study with fabricated cells, the first `finished` of them with a result, the others failed or interrupted.

    `names` are other names of its variants, `changes` are those of its design.
    """
    config = compose_config(["device=cpu", f"replicates={replicates}", *overrides])
    design = make_design(config)
    renamed = dict(zip((variant.name for variant in design.variants), names, strict=False))
    variants = tuple(replace(variant, name=renamed.get(variant.name, variant.name)) for variant in design.variants)
    baseline = renamed.get(design.baseline, design.baseline)
    design = replace(design, variants=variants, baseline=baseline, **changes)
    order = [variant.name for variant in design.variants]
    cells = []
    for number, cell in enumerate(design.cells()):
        index = order.index(cell.variant.name)
        result: dict[str, Any] = dict.fromkeys(CELL_METRICS, 1.0 + index)
        result |= {"top1": top1(index, cell.replicate), "parameters": 75000 + 100 * index, "attention_by": "kernels"}
        result |= {"train_time_ratio": 1 + 0.1 * index + 0.01 * cell.replicate, "peak_memory_mib": 11.5 + index}
        result["epochs"] = [{"epoch": 0, **dict.fromkeys(EPOCH_METRICS, 1.0)}]
        is_done = finished is None or number < finished
        outcome = {"result": result, "environment": {"cpu": "Machine & Co", "gpu": "none"}} if is_done else None
        cells.append(stored_cell(cell, number, outcome, failure))
    attributes: dict[str, Any] = {
        "command": "python -m ablations.run sweep=groups",
        "data_fingerprint": "f00d",
        "data": {"classes": [str(digit) for digit in range(10)], "train": 2048, "test": 1000},
    }
    declared = Declaration.of(design, commit="0123456789", command="x", time="2026-11-29T14:02:11+00:00")
    attributes |= {"declared": History.begun(declared).as_stored()}
    return StudyAnalysis(config, design, collect(design, cells), attributes, folder)


def macros(text: str) -> dict[str, str]:
    pairs = re.findall(r"^\\newcommand\{\\([^}]*)\}\{(.*)\}$", text, re.MULTILINE)
    assert len(pairs) == text.count("newcommand")
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)
