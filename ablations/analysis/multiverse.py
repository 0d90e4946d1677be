"""The same question under several protocols: every contrast judged under each, and whether the verdicts agree.

All contrasts of all protocols are one family (`ablations.stats.judge_together`), so verdicts here are corrected for
more contrasts than those of a protocol's own study. Whether an effect differs between two protocols is a question of
its own, which verdicts do not answer ("helps" and "undecided" may be the same effect): the difference of the
differences is tested by replicate, all contrasts and pairs of protocols as one family.
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
    """What the verdicts on one contrast under several protocols come to."""

    AGREES = "agrees"  # the same decided verdict under all
    COMPATIBLE = "compatible"  # decided verdicts do not contradict each other, and some are open
    CONTRADICTS = "contradicts"  # two decided verdicts differ
    OPEN = "open"  # decided under none


def agreement(verdicts: Iterable[Verdict]) -> Agreement:
    """Returns whether verdicts on one contrast under several protocols agree.

    Decided are helps, hurts and equivalent. Unstable is not: no mean describes such runs, whatever its sign.
    """
    known = list(verdicts)
    decided = set(known) & _DECIDED
    if not decided:
        return Agreement.OPEN
    if len(decided) > 1:
        return Agreement.CONTRADICTS
    return Agreement.AGREES if all(verdict in _DECIDED for verdict in known) else Agreement.COMPATIBLE


def agreements(frame: pd.DataFrame) -> dict[tuple[str, str], Agreement]:
    """Returns by variant and baseline whether the verdicts of a frame with a row a contrast and protocol agree."""
    return {
        (str(variant), str(baseline)): agreement(map(Verdict, own["verdict"]))
        for (variant, baseline), own in frame.groupby(["variant", "baseline"], sort=False)
    }


def contrasts_frame(contrasts: Mapping[str, Iterable[Contrast]], margins: Mapping[str, float]) -> pd.DataFrame:
    """Returns a row a contrast and protocol, of contrasts and the equivalence margin by protocol.

    Columns: `protocol`, `variant`, `baseline`, `n`, `mean` (the difference in the metric's unit, empty where n is 0),
    `low` and `high` (its own 95 % CI, empty where n is below 2), `verdict`, `p` and `p_equivalence` (corrected),
    `margin`, `assumes_normal`.
    """
    rows = [
        {"protocol": name, "variant": contrast.variant, "baseline": contrast.baseline}
        | vars(contrast.difference or Estimate(0, math.nan, math.nan, math.nan))
        | {"verdict": contrast.verdict.value, "p": contrast.p, "p_equivalence": contrast.p_equivalence}
        | {"margin": margins[name], "assumes_normal": contrast.assumes_normal}
        for name, own in contrasts.items()
        for contrast in own
    ]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


@dataclass(frozen=True)
class Interaction:
    """By how much a contrast is greater under one protocol than under another, over the replicates that both have.

    `p` is two-sided, corrected for all contrasts and pairs of protocols; `assumes_normal` says whether its test does.
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
    """What the studies of several protocols have come to; each part is computed when it is first asked for.

    Attributes:
        multiverse: what was asked for.
        folder: of the report.
        studies: by protocol, of those that have cells; one at least. Where variants are tuned there are two of each:
            under the protocol's recipe, and with each variant under its best one.
        unread: by protocol, the errors of studies that are stored and cannot be read.
    """

    multiverse: Multiverse
    folder: Path
    studies: Mapping[str, StudyAnalysis]
    unread: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The protocols without a cell that has ended."""
        known = (*self.studies, *self.unread)
        return [protocol.name for protocol in self.multiverse.protocols if protocol.name not in known]

    @property
    def question(self) -> str:
        """What is asked under all of them."""
        return self.multiverse.config.sweep.question

    @property
    def metric(self) -> str:
        """The key of the metric that verdicts are about."""
        return self.multiverse.config.judge.metric

    @property
    def margins(self) -> dict[str, float]:
        """The equivalence margin under each protocol, in the metric's unit."""
        return {name: study.design.margin for name, study in self.studies.items()}

    @property
    def has_interims(self) -> bool:
        """Whether any of the studies has interim analyses, so that each is judged by itself."""
        return any(study.interims for study in self.studies.values())

    @cached_property
    def contrasts(self) -> dict[str, list[Contrast]]:
        """The contrasts under each protocol, with verdicts that are corrected for those of all protocols."""
        judged = {name: study.contrasts for name, study in self.studies.items()} if self.has_interims else {}
        return judge_family(self._questions, judged, self.metric)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a contrast and protocol, as `contrasts_frame` has it."""
        return contrasts_frame(self.contrasts, self.margins)

    @cached_property
    def agreements(self) -> dict[tuple[str, str], Agreement]:
        """Whether verdicts agree, by variant and baseline; nothing where fewer than two protocols have cells."""
        return agreements(self.frame) if len(self.studies) > 1 else {}

    @cached_property
    def interactions(self) -> list[Interaction]:
        """How much effects differ between protocols, a pair of protocols each, the clearest first.

        There are none under interim analyses, which stop contrasts for what they are under one protocol.
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
        asked: what is judged, by protocol or study.
        judged: where any has interim analyses, the contrasts of each as judged by itself; otherwise empty.
        metric: by its key.
    """
    if judged:
        return {name: corrected_for_protocols(own, len(asked), metric) for name, own in judged.items()}
    return dict(zip(asked, judge_together(list(asked.values()), metric), strict=True))


def effect_differences(questions: Mapping[str, Question], metric: str) -> list[Interaction]:
    """Tests by how much each contrast differs between two protocols or studies, all as one family, clearest first."""
    layouts = [Layout.of(question.cells, metric) for question in questions.values()]
    replicates = np.unique(np.concatenate([layout.replicates for layout in layouts]))
    asked = [
        {name: other for name, other in question.baselines.items() if name != other} for question in questions.values()
    ]
    responses = [layout.over(replicates).responses(own) for layout, own in zip(layouts, asked, strict=True)]
    columns = [dict(zip(own.items(), of.differences.T, strict=True)) for own, of in zip(asked, responses, strict=True)]
    places, differences = [], []
    for one, other in itertools.combinations(range(len(columns)), 2):
        for contrast, column in columns[one].items():
            difference = column - columns[other].get(contrast, np.nan)
            if np.count_nonzero(~np.isnan(difference)) > 1:
                places.append((contrast, one, other))
                differences.append(difference)
    if not differences:
        return []
    stacked = np.column_stack(differences)
    # An interaction's own differences are all that tell its variance: protocols spread differently.
    family = Responses(Responses.joined(responses).values, stacked, np.full(len(places), 4.0), is_pooled=False)
    names = list(questions)
    found = [
        Interaction(*contrast, names[one], names[other], inference.estimate, inference.p, inference.assumes_normal)
        for (contrast, one, other), inference in zip(
            places, infer(lambda *_: family, len(places), 1.0, None), strict=True
        )
        if inference.estimate is not None and inference.estimate.has_spread
    ]
    return sorted(found, key=lambda one: one.p)


def multiverse_folder(multiverse: Multiverse) -> Path:
    """Returns `results_dir/<name>` for the report; raises UsageError if the name is a study's, or no folder's."""
    config = multiverse.config
    folder = study_folder(config)
    if find_study(storage_url(config), multiverse.name) is not None:
        reason = "is the name of a stored study; choose another name for the report on several protocols"
        raise UsageError("study", multiverse.name, reason)
    return folder


def find_multiverse(multiverse: Multiverse) -> MultiverseAnalysis | None:
    """Reads the stored studies of several protocols; returns None where no cell of any of them has ended.

    Studies that cannot be read, as those of another version of the suite, are left out if others can.

    Raises:
        SuiteError: if another study is stored under the name of one, or of the report, or no study can be read.
    """
    folder = multiverse_folder(multiverse)
    configs = {protocol.name: protocol.config for protocol in multiverse.protocols}
    unread: dict[str, Exception] = {}

    def find(name: str) -> StudyAnalysis | None:
        try:
            return find_configured(configs[name])
        except StudyFormatError as error:
            unread[name] = error
        except SuiteError:  # to be mended by the user
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
            # A best recipe for each variant is another answer to what the question leaves open.
            studies |= {f"{name} (tuned)": study.at_best} if study.at_best else {}
    return MultiverseAnalysis(multiverse, folder, studies, unread) if studies else None


def load_composed(multiverse: Multiverse, advice: str = NOT_RUN) -> MultiverseAnalysis:
    """Reads the stored studies of several protocols; raises UsageError, with `advice`, where there are none."""
    found = find_multiverse(multiverse)
    if found is None:
        names = [protocol.name for protocol in multiverse.protocols]
        raise UsageError("recipes", names, f"no results are stored for these protocols; {advice}")
    return found


def load_multiverse(*overrides: str) -> MultiverseAnalysis:
    """Reads the stored studies of several protocols by what was typed to run them.

    Overrides are as on the command line: `load_multiverse("sweep=groups", "recipes=[quick,cifar]")`.

    Raises:
        UsageError: if an override is not understood, or nothing is stored under any of the protocols.
    """
    return load_composed(compose_several(overrides, "load_study", "load_multiverse"))
