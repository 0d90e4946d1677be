"""Stored studies side by side: two protocols, two machines, two commits; what they share, and where they differ.

The studies are read from their stores alone, by what each declared before its first cell. All contrasts that two of
them or more have are judged again as one family, as those of several protocols are (`ablations.analysis.multiverse`),
and the differences of their effects are tested by replicate. Cells of studies with the same protocol are compared one
by one: on CPUs with the same instructions they have the same results to the last digit.
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
    """A study as far as it can be read from its store alone.

    Attributes:
        label: its name, with the folder where another one of the comparison has the same.
        folder: of its report and figures.
        attributes: what the store remembers of it.
        protocol: what all its cells share.
        declared: what it judges, as declared last.
        networks: the settings of each variant.
        cells: a row a cell that has ended: `variant`, `replicate` and the metrics of a cell, nan without a result.
        environments: the machines and versions that trained the cells, each once.
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
        """What each variant is compared with, by name; baselines are their own."""
        pairs = dict(self.declared.contrasts)
        return {baseline: baseline for baseline in pairs.values()} | pairs

    @property
    def is_declared(self) -> bool:
        """Whether it declared what it judges before its first cell."""
        return bool(self.attributes.get("declared"))

    @property
    def interims(self) -> InterimAnalyses | None:
        """When the study was looked at, under `replicates=auto`."""
        return InterimAnalyses.stored(self.attributes.get("looks"))

    def question(self, variants: Mapping[str, str]) -> Question:
        """Returns what is judged of the contrasts that `variants` has."""
        own = {name: other for name, other in self.baselines.items() if name == other or variants.get(name) == other}
        kept = {name: other for name, other in own.items() if name != other}
        return Question(self.cells, {**{other: other for other in kept.values()}, **kept}, self.declared.margin)

    @property
    def options(self) -> dict[str, str]:
        """What decides its results, by name: options of the protocol, networks, images, machine and versions."""
        known = {name: str(value) for name, value in flatten(dict(self.protocol)).items()}
        for variant, network in self.networks.items():
            known |= {f"{variant}: {name}": str(value) for name, value in flatten(dict(network)).items()}
        known["data fingerprint"] = str(self.attributes.get("data_fingerprint", "unknown"))
        replicates = int(self.cells.groupby("variant")["replicate"].nunique().max())
        known |= {"margin": f"{self.declared.margin:g}", "replicates": str(replicates)}
        for name in dict.fromkeys(name for one in self.environments for name in one):
            known[name] = ", ".join(dict.fromkeys(one[name] for one in self.environments if name in one))
        return known


@dataclass(frozen=True)
class StudyComparison:
    """Studies beside each other; each part is computed when it is first asked for.

    Attributes:
        name: of the folder of the report.
        folder: of the report.
        studies: by label, two at least.
    """

    name: str
    folder: Path
    studies: Mapping[str, StoredStudy]

    @property
    def metric(self) -> str:
        """The key of the metric that all of them judge."""
        return next(iter(self.studies.values())).declared.metric

    @property
    def margins(self) -> dict[str, float]:
        """The equivalence margin of each study, in the metric's unit."""
        return {label: study.declared.margin for label, study in self.studies.items()}

    @property
    def has_interims(self) -> bool:
        """Whether any of the studies has interim analyses, so that each is judged by itself."""
        return any(study.interims for study in self.studies.values())

    @cached_property
    def shared(self) -> dict[str, str]:
        """The contrasts that two studies or more have, as variants with their baselines."""
        pairs = [pair for study in self.studies.values() for pair in study.declared.contrasts]
        return {variant: baseline for variant, baseline in pairs if pairs.count((variant, baseline)) > 1}

    @cached_property
    def contrasts(self) -> dict[str, list[Contrast]]:
        """The shared contrasts in each study, with verdicts that are corrected for those of all studies."""
        asked = {label: study.question(self.shared) for label, study in self.studies.items()}
        judged = {
            label: judge(one.cells, one.baselines, one.margin, self.metric, self.studies[label].interims)
            for label, one in (asked.items() if self.has_interims else ())
        }
        return judge_family(asked, judged, self.metric)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a shared contrast and study, as `contrasts_frame` has it, with the study under `study`."""
        return contrasts_frame(self.contrasts, self.margins).rename(columns={"protocol": "study"})

    @cached_property
    def agreements(self) -> dict[tuple[str, str], Agreement]:
        """Whether verdicts agree, by variant and baseline."""
        return agreements(self.frame)

    @cached_property
    def interactions(self) -> list[Interaction]:
        """How much effects differ between studies, a pair of studies each; none under interim analyses."""
        if self.has_interims:
            return []
        return effect_differences(
            {label: one.question(self.shared) for label, one in self.studies.items()}, self.metric
        )

    @cached_property
    def effects(self) -> pd.DataFrame:
        """The same as a frame: `variant`, `baseline`, `study`, `other`, `n`, `mean`, `low`, `high`, `p` (corrected)."""
        rows = [
            {"variant": one.variant, "baseline": one.baseline, "study": one.protocol, "other": one.other}
            | vars(one.estimate)
            | {"p": one.p}
            for one in self.interactions
        ]
        return pd.DataFrame(rows, columns=["variant", "baseline", "study", "other", "n", "mean", "low", "high", "p"])

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row a cell that has ended: `study`, `variant`, `replicate` and the metrics of a cell."""
        return pd.concat([one.cells.assign(study=label) for label, one in self.studies.items()], ignore_index=True)[
            ["study", "variant", "replicate", *CELL_METRICS]
        ]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row a pair of studies: `study`, `other`, `same_protocol`, `cells` (of the same variant and replicate).

        Then `equal`, how many of these cells have the same metric to the last digit, and `largest`, the largest
        difference in its unit (nan without such cells).
        """
        rows = []
        for (label, one), (other_label, other) in itertools.combinations(self.studies.items(), 2):
            both = one.cells.merge(other.cells, on=["variant", "replicate"], suffixes=("", "_other"))
            gaps = (both[self.metric] - both[f"{self.metric}_other"]).abs().dropna()
            largest = float(gaps.max()) if len(gaps) else math.nan
            same = one.protocol == other.protocol
            rows.append((label, other_label, same, len(gaps), int((gaps == 0).sum()), largest))
        return pd.DataFrame(rows, columns=["study", "other", "same_protocol", "cells", "equal", "largest"])

    @cached_property
    def options(self) -> pd.DataFrame:
        """What differs: a row an option, network setting, machine or version, a column a study (empty: has none)."""
        known = {label: study.options for label, study in self.studies.items()}
        names = dict.fromkeys(name for options in known.values() for name in options)
        rows = [
            {"option": name} | {label: options.get(name, "") for label, options in known.items()}
            for name in names
            if len({options.get(name) for options in known.values()}) > 1 and not self._is_of_one(name)
        ]
        return pd.DataFrame(rows, columns=["option", *known])

    def _is_of_one(self, name: str) -> bool:
        """Whether a setting is of a variant that not all studies have."""
        variant, is_network, _ = name.partition(": ")
        return bool(is_network) and not all(variant in study.networks for study in self.studies.values())


def load_comparison(*words: str) -> StudyComparison:
    """Reads studies to be compared by what was typed, as `load_comparison("groups-digits-resnet8", "results/other")`.

    Names are of studies in `results_dir`, or folders of studies with the database beside them; options are as on the
    command line of `compare`.

    Raises:
        SuiteError: if a study is not stored, they have nothing in common, or an option is not understood.
    """
    overrides = [word for word in words if "=" in word and not Path(word).is_dir()]
    studies = [word for word in words if word not in overrides]
    config = compose_config(overrides)
    is_named = any(word.partition("=")[0].strip("+ ") == "study" for word in overrides)
    return _compared(studies, config if is_named else replace(config, study=""))


def _compared(words: Sequence[str], config: Config) -> StudyComparison:
    """Reads the studies that words name; `config.study` is the name of the report, empty for one made of theirs."""
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
        said = ", ".join(f"{label} judges {metric}" for label, metric in metrics.items())
        raise UsageError("STUDY", None, f"studies that judge different metrics cannot be compared: {said}")
    name = config.study or f"compare-{'-vs-'.join(names)}"
    if not config.study and len(name) > _LONGEST:
        raise UsageError("study", None, f"is needed: a name made of {len(names)} studies is too long; add study=NAME")
    folder = study_folder(replace(config, study=name))
    if find_study(storage_url(config), name) is not None:
        raise UsageError("study", name, "is the name of a stored study; the comparison needs another one")
    found = StudyComparison(name, folder, studies)
    if not found.shared:
        contrasts = "; ".join(f"{label}: {_contrasts(study)}" for label, study in studies.items())
        raise UsageError("STUDY", None, f"the studies have no contrast in common ({contrasts})")
    return found


def _contrasts(study: StoredStudy) -> str:
    named = [f"{variant} against {baseline}" for variant, baseline in study.declared.contrasts[:3]]
    return ", ".join(named) or "none"


def _place(word: str, config: Config) -> tuple[str, Path]:
    """Returns the database of a study and its folder."""
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
    """Returns what a study declared last; of one that declared nothing, what its baseline and its networks say."""
    history, attributes = History.stored(store.attributes.get("declared")), store.attributes
    baseline = str(attributes.get("baseline", ""))
    pairs = tuple((name, baseline) for name in networks if name != baseline) if baseline in networks else ()
    if history is not None:  # a search declares no contrasts, as it has yet to pick them
        return history.latest if history.latest.contrasts else replace(history.latest, contrasts=pairs)
    metric, question = store.objectives[0], str(attributes.get("question", ""))
    margin = DATA.get(store.protocol["data"]["name"], DataConfig).margin
    return Declaration(
        question=question, contrasts=pairs, baseline=baseline, metric=metric, margin=margin, replicates=0,
        protocol=store.protocol,
    )  # fmt: skip


def _cells(stored: Sequence[StoredCell]) -> pd.DataFrame:
    """Returns the cells on the test images that have ended, under the study's own recipe."""
    rows = []
    for cell in stored:
        if cell.split is not Split.TEST or cell.recipe:
            continue
        known: Mapping[str, Any] = {}
        if cell.state is CellState.FINISHED and cell.outcome:
            known = cell.outcome["result"]
        elif cell.state not in _LOST:
            continue
        values = {key: math.nan if known.get(key) is None else float(known[key]) for key in CELL_METRICS}
        rows.append({"variant": cell.variant, "replicate": cell.replicate} | values)
    frame = pd.DataFrame(rows, columns=["variant", "replicate", *CELL_METRICS])
    return frame.drop_duplicates(["variant", "replicate"], keep="last", ignore_index=True)
