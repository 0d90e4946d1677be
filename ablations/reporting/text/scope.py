"""The scope of a study's statements: protocol, machine, data, finished cells and shown variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.analysis.results import Results
from ablations.analysis.study import ENDS, MOST_SHOWN, StudyAnalysis
from ablations.common.settings import flatten
from ablations.common.wording import count
from ablations.config import REPLICATE
from ablations.design import Design

_NAMED = 6  # variants named if there are too many to name all


def protocol_line(design: Design, results: Results) -> str:
    """Returns a line with the data, protocol and machine of the cells."""
    protocol, train = design.protocol, design.protocol["train"]
    processor = "gpu" if protocol["device"] == "cuda" else "cpu"
    machines = " and ".join(dict.fromkeys(known[processor] for known in results.environments))
    models = " and ".join(dict.fromkeys(variant.model["name"] for variant in design.variants))
    recipe = f"{count(train['epochs'], 'epoch')}, {train['precision']}, last epoch"
    data = protocol["data"]
    return f"{data_line(data)}, {replication_clause(data)}, {models}, {recipe}; {machines}"


def replication_clause(data: Mapping[str, Any]) -> str:
    """Returns whether replicates have the same images, which limits the scope of verdicts, or different ones."""
    is_drawn, is_stored = data.get("seed") == REPLICATE, "train_per_class" in data
    if is_drawn:
        return (
            "with a different subset per replicate" if is_stored else "with different images and splits per replicate"
        )
    if not is_stored:
        return "on one fixed set of images and split"
    chosen = data["train_per_class"] or data["val_per_class"] or data.get("classes")
    return "on one fixed subset and the official split" if chosen else "on the official split"


def data_line(data: Mapping[str, Any]) -> str:
    """Returns the name of a data set, with the size of a subset: `cifar10 (500 training images of each class)`."""
    parts = []
    classes = data.get("classes")
    if isinstance(classes, str):
        parts.append(f"the classes of {classes}")
    elif classes:
        parts.append(count(len(classes) if isinstance(classes, list) else classes, "class", "classes"))
    for option, what in (("train_per_class", "training"), ("val_per_class", "test")):
        if data.get(option):
            parts.append(f"{data[option]:,} {what} images of each class")
    if "resolution" in data:
        parts.append(f"{data['resolution']}x{data['resolution']} pixels")
    return f"{data['name']} ({', '.join(parts)})" if parts else str(data["name"])


def protocol_options(analysis: StudyAnalysis) -> dict[str, str]:
    """Returns the values common to all cells by option name."""
    options = {name: str(value) for name, value in flatten(analysis.design.protocol).items()}
    return options | {"data fingerprint": str(analysis.attributes.get("data_fingerprint", "unknown"))}


def missing_sentence(results: Results) -> str:
    """Lists unfinished cells in a sentence; empty if all are finished."""
    pending = results.pending
    if pending.empty:
        return ""
    by_variant = pending.groupby("variant", sort=False)["replicate"].count()
    most = by_variant if len(by_variant) <= MOST_SHOWN else by_variant.head(_NAMED)
    named = ", ".join(f"{number} of {name}" for name, number in most.items())
    if len(most) < len(by_variant):
        named += f", and of {len(by_variant) - len(most):,} other variants"
    return f"Not finished: {len(pending)} of {count(len(pending) + len(results.cells), 'cell')} ({named})."


def state_sentence(results: Results) -> str:
    """Returns a sentence on whether all cells are finished, otherwise on the missing ones."""
    if missing := missing_sentence(results):
        return missing
    return f"All {count(len(results.cells), 'cell')} are finished."


def shown_sentence(analysis: StudyAnalysis) -> str:
    """Returns a sentence on which variants are shown; empty if all are."""
    if analysis.shows_all:
        return ""
    return (
        f"Shown: the {ENDS} variants with the highest and the {ENDS} with the lowest top-1 of "
        f"{len(analysis.summaries):,}, and their baselines; the CSV files list all."
    )


def shown_effects_sentence(analysis: StudyAnalysis) -> str:
    """Returns a sentence on which effects of crossed factors are shown; empty if all are."""
    if len(analysis.shown_effects) == len(analysis.effects):
        return ""
    return (
        f"Shown: the {ENDS} highest and the {ENDS} lowest of {len(analysis.effects):,} effects; tables/effects.csv "
        "lists all."
    )
