"""The same question under several protocols: verdicts under each, and their agreement.

All contrasts of all protocols are one family (`ablations.stats.judge_together`), so verdicts are corrected for more
contrasts here than in the study of a single protocol. Verdicts do not show whether an effect differs between two
protocols ("helps" and "undecided" may be the same effect), so the difference of the differences is tested by replicate,
with all contrasts and pairs of protocols as one family.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ablations.analysis.load import find_configured
from ablations.analysis.study import StudyAnalysis
from ablations.common.errors import SuiteError, UsageError
from ablations.config.multiverse import Multiverse, compose_several, for_each
from ablations.stats import Contrast, Estimate, Question, Verdict, corrected_for_protocols, judge_together
from ablations.stats.family import infer
from ablations.stats.layout import Layout
from ablations.stats.significance import Responses
from ablations.storage.errors import StudyFormatError
from ablations.storage.paths import storage_url, study_folder
from ablations.storage.study import NOT_RUN, find_study

_DECIDED = frozenset({Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT})
_COLUMNS = (
    "protocol", "variant", "baseline", "n", "mean", "low", "high", "verdict", "p", "p_equivalence", "margin",
    "assumes_normal",
)  # fmt: skip


class Agreement(Enum):
    """Agreement of the verdicts on one contrast under several protocols."""

    AGREES = "agrees"  # the same decided verdict under all protocols
    COMPATIBLE = "compatible"  # all decided verdicts are equal, and some are not decided
    CONTRADICTS = "contradicts"  # two decided verdicts differ
    OPEN = "open"  # not decided under any protocol


def agreement(verdicts: Iterable[Verdict]) -> Agreement:
    """Returns the agreement of verdicts on one contrast under several protocols.

    The verdicts helps, hurts and equivalent are decided; unstable is not, because no mean describes such runs.
    """
    distinct = set(verdicts)
    decided = distinct & _DECIDED
    if not decided:
        return Agreement.OPEN
    if len(decided) > 1:
        return Agreement.CONTRADICTS
    return Agreement.AGREES if decided == distinct else Agreement.COMPATIBLE


def agreements(frame: pd.DataFrame) -> dict[tuple[str, str], Agreement]:
    """Returns the agreement by variant and baseline, from a frame with a row per contrast and protocol."""
    return {
        (str(variant), str(baseline)): agreement(map(Verdict, rows["verdict"]))
        for (variant, baseline), rows in frame.groupby(["variant", "baseline"], sort=False)
    }


def contrasts_frame(contrasts: Mapping[str, Iterable[Contrast]], margins: Mapping[str, float]) -> pd.DataFrame:
    """Returns a row per contrast and protocol, given contrasts and equivalence margins by protocol.

    Columns: `protocol`, `variant`, `baseline`, `n`, `mean` (the difference in the metric's unit, empty if n is 0),
    `low` and `high` (95 % CI, not corrected, empty if n is below 2), `verdict`, `p` and `p_equivalence` (corrected),
    `margin`, `assumes_normal`.
    """
    rows = [
        {"protocol": name, "variant": contrast.variant, "baseline": contrast.baseline}
        | vars(contrast.difference or Estimate(0, math.nan, math.nan, math.nan))
        | {"verdict": contrast.verdict.value, "p": contrast.p, "p_equivalence": contrast.p_equivalence}
        | {"margin": margins[name], "assumes_normal": contrast.assumes_normal}
        for name, of_protocol in contrasts.items()
        for contrast in of_protocol
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


@dataclass(frozen=True)
class Interaction:
    """The difference of a contrast between `protocol` and `other`, over the replicates that both have.

    `p` is two-sided, corrected for all contrasts and pairs of protocols; `assumes_normal` is whether its test does.
    """

    variant: str
    baseline: str
    protocol: str
    other: str
    estimate: Estimate
    p: float
    assumes_normal: bool


@dataclass(frozen=True)
class MultiverseAnalysis:
    """The analysis of the studies of several protocols; each part is computed on first access.

    Attributes:
        multiverse: the protocols.
        folder: of the report.
        studies: the studies with cells, by protocol; at least one. A tuned study is included twice: under the
            protocol's recipe, and with each variant under its best recipe.
        unread: the errors of stored studies that cannot be read, by protocol.
    """

    multiverse: Multiverse
    folder: Path
    studies: Mapping[str, StudyAnalysis]
    unread: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The protocols without an ended cell."""
        stored = (*self.studies, *self.unread)
        return [protocol.name for protocol in self.multiverse.protocols if protocol.name not in stored]

    @property
    def question(self) -> str:
        """The research question."""
        return self.multiverse.config.sweep.question

    @property
    def metric(self) -> str:
        """The key of the metric of all verdicts."""
        return self.multiverse.config.judge.metric

    @property
    def margins(self) -> dict[str, float]:
        """The equivalence margin under each protocol, in the metric's unit."""
        return {name: study.design.margin for name, study in self.studies.items()}

    @property
    def has_interims(self) -> bool:
        """Whether any study has interim analyses, so that each is judged separately."""
        return any(study.interims for study in self.studies.values())

    @cached_property
    def contrasts(self) -> dict[str, list[Contrast]]:
        """The contrasts under each protocol, with verdicts corrected for the contrasts of all protocols."""
        judged = {name: study.contrasts for name, study in self.studies.items()} if self.has_interims else {}
        return judge_family(self._questions, judged, self.metric)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per contrast and protocol; see `contrasts_frame`."""
        return contrasts_frame(self.contrasts, self.margins)

    @cached_property
    def agreements(self) -> dict[tuple[str, str], Agreement]:
        """Whether verdicts agree, by variant and baseline; empty if fewer than two protocols have cells."""
        return agreements(self.frame) if len(self.studies) > 1 else {}

    @cached_property
    def interactions(self) -> list[Interaction]:
        """Differences of effects between each two protocols, by increasing p.

        Empty with interim analyses, which stop a contrast depending on its result under one protocol.
        """
        return [] if self.has_interims else effect_differences(self._questions, self.metric)

    @property
    def _questions(self) -> dict[str, Question]:
        return {
            name: Question(study.results.ended, study.design.baselines, study.design.margin)
            for name, study in self.studies.items()
        }


def judge_family(
    asked: Mapping[str, Question], judged: Mapping[str, Sequence[Contrast]], metric: str
) -> dict[str, list[Contrast]]:
    """Judges the contrasts of several protocols or studies as one family.

    Args:
        asked: the questions by protocol or study.
        judged: with interim analyses, the contrasts of each as judged separately; otherwise empty.
        metric: key of the metric.
    """
    if judged:
        return {name: corrected_for_protocols(each, len(asked), metric) for name, each in judged.items()}
    return dict(zip(asked, judge_together(list(asked.values()), metric), strict=True))


def effect_differences(questions: Mapping[str, Question], metric: str) -> list[Interaction]:
    """Tests the difference of each contrast between each two protocols or studies as one family; by increasing p."""
    layouts = [Layout.of(question.cells, metric) for question in questions.values()]
    replicates = np.unique(np.concatenate([layout.replicates for layout in layouts]))
    contrasts = [
        {name: base for name, base in question.baselines.items() if name != base} for question in questions.values()
    ]
    responses = [layout.over(replicates).responses(pairs) for layout, pairs in zip(layouts, contrasts, strict=True)]
    columns = {
        name: dict(zip(pairs.items(), response.differences.T, strict=True))
        for name, pairs, response in zip(questions, contrasts, responses, strict=True)
    }
    compared, differences = [], []
    for protocol, other in itertools.combinations(columns, 2):
        for contrast, column in columns[protocol].items():
            difference = column - columns[other].get(contrast, np.nan)
            if np.count_nonzero(~np.isnan(difference)) > 1:
                compared.append((*contrast, protocol, other))
                differences.append(difference)
    if not differences:
        return []
    stacked = np.column_stack(differences)
    # Not pooled: the variance may depend on the protocol.
    family = Responses(Responses.joined(responses).values, stacked, np.full(len(compared), 4.0), is_pooled=False)
    inferences = infer(lambda *_: family, len(compared), 1.0, None)
    interactions = [
        Interaction(*names, inference.estimate, inference.p, inference.assumes_normal)
        for names, inference in zip(compared, inferences, strict=True)
        if inference.estimate is not None and inference.estimate.has_spread
    ]
    return sorted(interactions, key=lambda interaction: interaction.p)


def multiverse_folder(multiverse: Multiverse) -> Path:
    """Returns `results_dir/<name>` for the report; raises UsageError if the name is invalid or that of a study."""
    config = multiverse.config
    folder = study_folder(config)
    if find_study(storage_url(config), multiverse.name) is not None:
        reason = "is the name of a stored study; choose another name for the report on several protocols"
        raise UsageError("study", multiverse.name, reason)
    return folder


def find_multiverse(multiverse: Multiverse) -> MultiverseAnalysis | None:
    """Reads the stored studies of several protocols; returns None if none of them has an ended cell.

    Unreadable studies, such as those of another version of the suite, are left out if at least one can be read.

    Raises:
        SuiteError: if a different study is stored under one of the names, or no study can be read.
    """
    folder = multiverse_folder(multiverse)
    configs = {protocol.name: protocol.config for protocol in multiverse.protocols}
    unread: dict[str, Exception] = {}

    def find(name: str) -> StudyAnalysis | None:
        try:
            return find_configured(configs[name])
        except StudyFormatError as error:
            unread[name] = error
        except SuiteError:  # the user can correct it
            raise
        except Exception as error:
            unread[name] = error
        return None

    found = dict(zip(configs, for_each(configs, find), strict=True))
    if len(unread) == len(configs):
        raise next(iter(unread.values()))
    studies = {}
    for name, study in found.items():
        if study is not None:
            studies[name] = study
            # The best recipe of each variant is one more protocol.
            studies |= {f"{name} (tuned)": study.at_best} if study.at_best else {}
    return MultiverseAnalysis(multiverse, folder, studies, unread) if studies else None


def load_composed(multiverse: Multiverse, advice: str = NOT_RUN) -> MultiverseAnalysis:
    """Reads the stored studies of several protocols; raises UsageError, with `advice`, if there are none."""
    analysis = find_multiverse(multiverse)
    if analysis is None:
        names = [protocol.name for protocol in multiverse.protocols]
        raise UsageError("recipes", names, f"no results are stored for these protocols; {advice}")
    return analysis


def load_multiverse(*overrides: str) -> MultiverseAnalysis:
    """Reads the stored studies of several protocols by the overrides that they were run with.

    Overrides are as on the command line: `load_multiverse("sweep=groups", "recipes=[quick,cifar]")`.

    Raises:
        UsageError: if an override is invalid, or no protocol has stored results.
    """
    return load_composed(compose_several(overrides, "load_study", "load_multiverse"))
