"""Compares stored studies of different protocols, machines or commits.

The studies are read from their stores alone, with the declaration of each. All contrasts that at least two studies have
are judged again as one family, as under several protocols (`ablations.analysis.multiverse`), and differences between
their effects are tested by replicate. Cells of studies with the same protocol are compared one by one: CPUs with the
same instruction sets compute bitwise equal results.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ablations.analysis.multiverse import (
    Agreement,
    Interaction,
    agreements,
    contrasts_frame,
    effect_differences,
    judge_family,
)
from ablations.common.errors import SuiteError, UsageError
from ablations.common.metrics import CELL_METRICS
from ablations.common.settings import flatten
from ablations.common.urls import sqlite_url
from ablations.config import DATA, Config, DataConfig
from ablations.config.compose import compose_config
from ablations.design import Split
from ablations.design.declaration import Declaration, History
from ablations.stats import Contrast, InterimAnalyses, Question, judge
from ablations.storage.cell_states import CellState, StoredCell
from ablations.storage.paths import results_folder, storage_url, study_folder
from ablations.storage.study import StudyStore, find_study, open_store

_DATABASE = "optuna.db"
_LONGEST = 100  # letters of a folder's name
_LOST = (CellState.DIVERGED, CellState.FAILED)


@dataclass(frozen=True)
class StoredStudy:
    """A study as read from its store alone.

    Attributes:
        label: its name, or the path as typed if another study of the comparison has the same name.
        folder: of its report and figures.
        attributes: its attributes in the store.
        protocol: the protocol of its cells.
        declared: the latest declaration.
        networks: the settings of each variant.
        cells: a row per ended cell: `variant`, `replicate` and the metrics of a cell, nan without a result.
        environments: the distinct machines and versions that trained the cells.
    """

    label: str
    folder: Path
    attributes: Mapping[str, Any]
    protocol: Mapping[str, Any]
    declared: Declaration
    networks: Mapping[str, Mapping[str, Any]]
    cells: pd.DataFrame
    environments: Sequence[Mapping[str, str]]

    @property
    def baselines(self) -> dict[str, str]:
        """The baseline of each variant; baselines map to themselves."""
        pairs = dict(self.declared.contrasts)
        return {baseline: baseline for baseline in pairs.values()} | pairs

    @property
    def is_declared(self) -> bool:
        """Whether the study declared its contrasts before its first cell."""
        return bool(self.attributes.get("declared"))

    @property
    def interims(self) -> InterimAnalyses | None:
        """The interim analyses of the study, with `replicates=auto`."""
        return InterimAnalyses.stored(self.attributes.get("looks"))

    def question(self, variants: Mapping[str, str]) -> Question:
        """Returns the question of `judge` for those of the contrasts in `variants` that the study has."""
        pairs = self.baselines.items()
        contrasts = {name: base for name, base in pairs if name != base and variants.get(name) == base}
        return Question(self.cells, {base: base for base in contrasts.values()} | contrasts, self.declared.margin)

    @property
    def options(self) -> dict[str, str]:
        """All that affects its results, by name: protocol, networks, images, machine and versions."""
        options = {name: str(value) for name, value in flatten(dict(self.protocol)).items()}
        for variant, network in self.networks.items():
            options |= {f"{variant}: {name}": str(value) for name, value in flatten(dict(network)).items()}
        options["data fingerprint"] = str(self.attributes.get("data_fingerprint", "unknown"))
        replicates = int(self.cells.groupby("variant")["replicate"].nunique().max())
        options |= {"margin": f"{self.declared.margin:g}", "replicates": str(replicates)}
        for name in dict.fromkeys(itertools.chain.from_iterable(self.environments)):
            values = [environment[name] for environment in self.environments if name in environment]
            options[name] = ", ".join(dict.fromkeys(values))
        return options


@dataclass(frozen=True)
class StudyComparison:
    """A comparison of studies; each part is computed on first access.

    Attributes:
        name: of the report's folder.
        folder: of the report.
        studies: two or more, by label.
    """

    name: str
    folder: Path
    studies: Mapping[str, StoredStudy]

    @property
    def metric(self) -> str:
        """The key of the metric of all verdicts."""
        return next(iter(self.studies.values())).declared.metric

    @property
    def margins(self) -> dict[str, float]:
        """The equivalence margin of each study, in the metric's unit."""
        return {label: study.declared.margin for label, study in self.studies.items()}

    @property
    def has_interims(self) -> bool:
        """Whether any study has interim analyses, so that each is judged separately."""
        return any(study.interims for study in self.studies.values())

    @cached_property
    def shared(self) -> dict[str, str]:
        """The contrasts that at least two studies have: variants with their baselines."""
        pairs = [pair for study in self.studies.values() for pair in study.declared.contrasts]
        return {variant: baseline for variant, baseline in pairs if pairs.count((variant, baseline)) > 1}

    @cached_property
    def contrasts(self) -> dict[str, list[Contrast]]:
        """The shared contrasts in each study, with verdicts corrected for the contrasts of all studies."""
        questions = self._questions
        judged = {
            label: judge(asked.cells, asked.baselines, asked.margin, self.metric, self.studies[label].interims)
            for label, asked in (questions.items() if self.has_interims else ())
        }
        return judge_family(questions, judged, self.metric)

    @property
    def _questions(self) -> dict[str, Question]:
        return {label: study.question(self.shared) for label, study in self.studies.items()}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per shared contrast and study, as of `contrasts_frame`, with `study` in place of `protocol`."""
        return contrasts_frame(self.contrasts, self.margins).rename(columns={"protocol": "study"})

    @cached_property
    def agreements(self) -> dict[tuple[str, str], Agreement]:
        """Whether verdicts agree, by variant and baseline."""
        return agreements(self.frame)

    @cached_property
    def interactions(self) -> list[Interaction]:
        """Differences of effects between each two studies; none with interim analyses."""
        return [] if self.has_interims else effect_differences(self._questions, self.metric)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """`interactions` with columns `variant`, `baseline`, `study`, `other`, `n`, `mean`, `low`, `high`, `p`."""
        rows = [
            {"variant": each.variant, "baseline": each.baseline, "study": each.protocol, "other": each.other}
            | vars(each.estimate)
            | {"p": each.p}
            for each in self.interactions
        ]
        return pd.DataFrame(rows, columns=["variant", "baseline", "study", "other", "n", "mean", "low", "high", "p"])

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row per ended cell: `study`, `variant`, `replicate` and the metrics of a cell."""
        frames = [study.cells.assign(study=label) for label, study in self.studies.items()]
        return pd.concat(frames, ignore_index=True)[["study", "variant", "replicate", *CELL_METRICS]]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row per pair of studies: `study`, `other`, `same_protocol`, and a comparison of their common cells.

        `cells` is the number of cells with the same variant and replicate in both, `equal` the number of those with
        bitwise equal metric, `largest` the largest difference in the metric's unit (nan without common cells).
        """
        rows = []
        for (label, study), (other_label, other) in itertools.combinations(self.studies.items(), 2):
            both = study.cells.merge(other.cells, on=["variant", "replicate"], suffixes=("", "_other"))
            gaps = (both[self.metric] - both[f"{self.metric}_other"]).abs().dropna()
            largest = float(gaps.max()) if len(gaps) else math.nan
            same_protocol = study.protocol == other.protocol
            rows.append((label, other_label, same_protocol, len(gaps), int((gaps == 0).sum()), largest))
        return pd.DataFrame(rows, columns=["study", "other", "same_protocol", "cells", "equal", "largest"])

    @cached_property
    def options(self) -> pd.DataFrame:
        """The options that differ: a row per option, network setting, machine or version, a column per study."""
        by_study = {label: study.options for label, study in self.studies.items()}
        rows = [
            {"option": name} | {label: options.get(name, "") for label, options in by_study.items()}
            for name in dict.fromkeys(itertools.chain.from_iterable(by_study.values()))
            if len({options.get(name) for options in by_study.values()}) > 1 and not self._is_unshared(name)
        ]
        return pd.DataFrame(rows, columns=["option", *by_study])

    def _is_unshared(self, name: str) -> bool:
        """Returns whether a setting is of a variant that not all studies have."""
        variant, is_network, _ = name.partition(": ")
        return bool(is_network) and not all(variant in study.networks for study in self.studies.values())


def load_comparison(*words: str) -> StudyComparison:
    """Reads stored studies for a comparison, as `load_comparison("groups-digits-resnet8", "results/other")`.

    Args:
        words: names of studies in `results_dir`, or folders of studies with the database beside them; and options, as
            on the command line of `compare`.

    Raises:
        SuiteError: if a study is not stored, the studies have no contrast in common, or an option is invalid.
    """
    overrides = [word for word in words if "=" in word and not Path(word).is_dir()]
    studies = [word for word in words if word not in overrides]
    config = compose_config(overrides)
    is_named = any(word.partition("=")[0].strip("+ ") == "study" for word in overrides)
    return _compared(studies, config if is_named else replace(config, study=""))


def _compared(words: Sequence[str], config: Config) -> StudyComparison:
    """Reads the studies; `config.study` is the name of the report, by default composed of the studies' names."""
    if len(words) < 2:
        raise UsageError("STUDY", " ".join(words) or None, "name two studies or more, as groups-digits-resnet8 other")
    for word in words:
        if words.count(word) > 1:
            raise UsageError("STUDY", word, "is given twice")
    places = [_place(word, config) for word in words]
    names = [folder.name for _, folder in places]
    labels = [name if names.count(name) == 1 else word for name, word in zip(names, words, strict=True)]
    studies = {label: _read(*place, label) for label, place in zip(labels, places, strict=True)}
    metrics = {label: study.declared.metric for label, study in studies.items()}
    if len(set(metrics.values())) > 1:
        listed = ", ".join(f"{label} judges {metric}" for label, metric in metrics.items())
        raise UsageError("STUDY", None, f"studies that judge different metrics cannot be compared: {listed}")
    name = config.study or f"compare-{'-vs-'.join(names)}"
    if not config.study and len(name) > _LONGEST:
        raise UsageError("study", None, f"is needed: a name made of {len(names)} studies is too long; add study=NAME")
    folder = study_folder(replace(config, study=name))
    if find_study(storage_url(config), name) is not None:
        raise UsageError("study", name, "is the name of a stored study; the comparison needs another one")
    comparison = StudyComparison(name, folder, studies)
    if not comparison.shared:
        contrasts = "; ".join(f"{label}: {_contrasts(study)}" for label, study in studies.items())
        raise UsageError("STUDY", None, f"the studies have no contrast in common ({contrasts})")
    return comparison


def _contrasts(study: StoredStudy) -> str:
    first = [f"{variant} against {baseline}" for variant, baseline in study.declared.contrasts[:3]]
    return ", ".join(first) or "none"


def _place(word: str, config: Config) -> tuple[str, Path]:
    """Returns the database URL and the folder of a study."""
    path = Path(word).expanduser()
    if not path.is_dir() and len(path.parts) < 2:
        return storage_url(config), results_folder(config) / word
    folder = path.resolve()
    if config.storage:
        return storage_url(config), folder
    if not path.is_dir() or not (folder.parent / _DATABASE).is_file():
        reason = f"is not a folder of a study with {_DATABASE} beside it; give the name of the study, with storage=URL"
        raise UsageError("STUDY", word, reason)
    return sqlite_url(folder.parent / _DATABASE), folder


def _read(url: str, folder: Path, label: str) -> StoredStudy:
    try:
        store = open_store(url, folder.name, create=False, advice="`run` makes studies")
    except SuiteError as error:
        raise type(error)("STUDY", label, error.reason, error.choices) from None
    stored = [] if store.is_empty else store.cells()
    cells = _cells(stored)
    if cells.empty:
        raise UsageError("STUDY", label, "no cell of this study has ended yet; `run` trains them")
    networks = {cell.variant: cell.network for cell in stored if cell.split is Split.TEST} | store.networks
    declared = _declared(store, networks)
    environments = {json.dumps(dict(cell.outcome.get("environment", {}))) for cell in stored if cell.outcome}
    return StoredStudy(
        label, folder, store.attributes, store.protocol, declared, networks, cells,
        [json.loads(text) for text in sorted(environments)],
    )  # fmt: skip


def _declared(store: StudyStore, networks: Mapping[str, object]) -> Declaration:
    """Returns the latest declaration of a study; without any, one derived from its baseline and networks."""
    history, attributes = History.stored(store.attributes.get("declared")), store.attributes
    baseline = str(attributes.get("baseline", ""))
    pairs = tuple((name, baseline) for name in networks if name != baseline) if baseline in networks else ()
    if history is not None:  # a search cannot declare contrasts: it has not selected its variants yet
        return history.latest if history.latest.contrasts else replace(history.latest, contrasts=pairs)
    metric, question = store.objectives[0], str(attributes.get("question", ""))
    margin = DATA.get(store.protocol["data"]["name"], DataConfig).margin
    return Declaration(
        question=question, contrasts=pairs, baseline=baseline, metric=metric, margin=margin, replicates=0,
        protocol=store.protocol,
    )  # fmt: skip


def _cells(stored: Sequence[StoredCell]) -> pd.DataFrame:
    """Returns the ended cells on the test images under the study's common recipe."""
    rows = []
    for cell in stored:
        if cell.split is not Split.TEST or cell.recipe:
            continue
        result: Mapping[str, Any] = {}
        if cell.state is CellState.FINISHED and cell.outcome:
            result = cell.outcome["result"]
        elif cell.state not in _LOST:
            continue
        values = {key: math.nan if result.get(key) is None else float(result[key]) for key in CELL_METRICS}
        rows.append({"variant": cell.variant, "replicate": cell.replicate} | values)
    frame = pd.DataFrame(rows, columns=["variant", "replicate", *CELL_METRICS])
    return frame.drop_duplicates(["variant", "replicate"], keep="last", ignore_index=True)
