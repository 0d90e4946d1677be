"""A comparison of stored studies as text: agreement of verdicts, and differing effects and cells."""

from __future__ import annotations

import pandas as pd

from ablations.analysis.comparison import StudyComparison
from ablations.common.metrics import METRICS
from ablations.common.wording import count, listed
from ablations.reporting.text.multiverse import (
    agreement_sentences,
    interaction_sentences,
    method_sentence,
    tally_sentence,
)
from ablations.reporting.text.scope import data_line

STUDY = ("study", "studies", "in")
_TOLD = 60  # maximum number of contrasts with a sentence each
_NAMED = 4  # maximum number of named contrasts of one study


def comparison_sentences(found: StudyComparison) -> list[str]:
    """Returns sentences on agreement, differing effects, equality of common cells, and contrasts of one study only."""
    frame = found.frame.rename(columns={"study": "protocol"})
    sentences = [tally_sentence(found.agreements.values(), len(found.studies), STUDY)]
    if len(found.agreements) <= _TOLD:
        sentences += agreement_sentences(frame, STUDY)
    sentences += interaction_sentences(found.interactions, METRICS[found.metric], STUDY)
    sentences += cell_sentences(found.pairs, found.metric)
    sentences += _of_one(found)
    if undeclared := [label for label, study in found.studies.items() if not study.is_declared]:
        what = "nothing was declared before the first cell, so verdicts are exploratory"
        sentences.append(f"In {listed(undeclared)} {what}, by the margin that is usual for the data.")
    return [*sentences, method_sentence(frame, len(found.studies), STUDY, has_interims=found.has_interims)]


def cell_sentences(pairs: pd.DataFrame, metric: str) -> list[str]:
    """Returns sentences on how many common cells of studies with the same protocol have equal results."""
    known = METRICS[metric]
    sentences = []
    for row in pairs.to_dict("records"):
        if not row["same_protocol"]:
            continue
        names, shared = f"{row['study']} and {row['other']} have the same protocol", count(row["cells"], "cell")
        if not row["cells"]:
            sentences.append(f"{names}, and no cell in common.")
        elif row["equal"] == row["cells"]:
            same = f"and the same {known.label.lower()} to the last digit in all of {shared} in common"
            sentences.append(f"{names}, {same}: they may be the same runs.")
        else:
            largest = f"the largest difference is {known.format_difference(row['largest']).lstrip('+')}"
            unit = f" {known.difference_unit}".rstrip()
            sentences.append(
                f"{names}: of {shared} in common {row['equal']:,} have the same {known.label.lower()} to the last "
                f"digit; {largest}{unit}."
            )
    return sentences


def _of_one(found: StudyComparison) -> list[str]:
    sentences = []
    for label, study in found.studies.items():
        alone = [pair for pair in study.declared.contrasts if found.shared.get(pair[0]) != pair[1]]
        if alone:
            named = [f"{variant} against {baseline}" for variant, baseline in alone[:_NAMED]]
            more = [count(len(alone) - _NAMED, "more contrast")] if len(alone) > _NAMED else []
            sentences.append(f"In {label} alone: {listed([*named, *more])}.")
    return sentences


def study_lines(found: StudyComparison) -> dict[str, str]:
    """Returns a line for each study with its data, backbones, recipe, machine and commit."""
    lines = {}
    for label, study in found.studies.items():
        train, options = study.protocol["train"], study.options
        models = " and ".join(dict.fromkeys(network["model"]["name"] for network in study.networks.values()))
        processor = options.get("gpu" if study.protocol["device"] == "cuda" else "cpu", "unknown machine")
        commit = ", ".join(one[:9] for one in options.get("commit", "unknown").split(", "))
        recipe = f"{count(train['epochs'], 'epoch')}, {train['precision']}"
        lines[label] = f"{data_line(study.protocol['data'])}, {models}, {recipe}; {processor}; commit {commit}"
    return lines
