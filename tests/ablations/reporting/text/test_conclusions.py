"""Conclusions state the verdicts of a study and their basis, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ablations.analysis.results import Results, collect
from ablations.analysis.study import StudyAnalysis
from ablations.design import Design
from ablations.reporting.text.conclusions import conclusions, warnings
from ablations.stats import InterimAnalyses, summarise
from ablations.storage.cell_states import CellState
from ablations.storage.study import StoredCell
from tests.builders.cells import configuration, design, diverged, stored
from tests.builders.verdicts import SINGLY, SPREAD, said_of
from tests.wording import worded


class Study:
    """A study with synthetic accuracies; cells that are not `finished` have the state `others`.

    Args:
        top1: by variant and replicate.
        replicates: of the design.
        finished: whether a variant's replicate is finished.
        others: the state of the other cells; None if they are not stored.
        change: changes to the outcome of a variant and replicate.
    """

    def __init__(
        self,
        top1: Callable[[str, int], float],
        replicates: int = 8,
        finished: Callable[[str, int], bool] = lambda *_: True,
        others: CellState | None = CellState.INTERRUPTED,
        change: Callable[[str, int], Mapping[str, Any]] = lambda *_: {},
    ) -> None:
        self.design = design(replicates)
        self.known = list[StoredCell]()
        for cell in stored(self.design, 3 * replicates):
            place = (cell.variant, cell.replicate)
            assert cell.outcome is not None
            parts = dict(change(*place))
            environment = parts.pop("environment", cell.outcome["environment"])
            outcome = {"result": cell.outcome["result"] | {"top1": top1(*place)} | parts, "environment": environment}
            if finished(*place):
                self.known.append(replace(cell, outcome=outcome))
            elif others is not None:
                self.known.append(replace(cell, outcome=None, state=others, failure=None))

    @property
    def results(self) -> Results:
        return collect(self.design, self.known)

    def said(self, interims: InterimAnalyses | None = None, **changed: Any) -> list[str]:
        made: Design = replace(self.design, **changed)
        return conclusions(analysis_of(self.results, made, {"looks": list(interims.sizes)} if interims else {}))


def analysis_of(results: Results, made: Design, attributes: Mapping[str, Any] = MappingProxyType({})) -> StudyAnalysis:
    return StudyAnalysis(configuration(), made, results, attributes, Path("unwritten"))


def mixed(variant: str, replicate: int) -> float:
    """groups=2 helps, and groups=4 is undecided."""
    wiggle = (1 + 0.1 * replicate) * (-1.0 if replicate % 2 else 1.0)
    return {"none": 50.0 + replicate, "groups=2": 55.0 + 0.9 * replicate, "groups=4": 50.1 + replicate + wiggle}[
        variant
    ]


def test_conclusions_range_from_the_highest_variant_to_the_power() -> None:
    highest, helps, open_one, how_sure, gain, power, margin = Study(mixed).said()
    assert highest == worded("conclusions.highest", named="groups=2", top1="58.1 [56.3, 60.0]", n=8)
    assert helps == said_of("helps", SPREAD, "+4.65", "+4.45", "+4.85", ", p = 0.0078", treatment="groups=2")
    assert open_one == said_of("undecided", SPREAD, "+0.05", "-1.17", "+1.27", ", p = 0.91", treatment="groups=4")
    of_how_many = worded("verdicts.contrasts", number=2)
    assert how_sure.startswith(worded("verdicts.method", contrasts=of_how_many))
    assert worded("verdicts.symmetric") in how_sure
    assert how_sure.endswith(worded("conclusions.adding"))
    assert gain.startswith(worded("reach.efficiency", gain=""))
    assert power.startswith(worded("reach.detects", replicates=8, contrasts=2, effect=""))
    assert margin.startswith(worded("reach.margin", margin=""))


def test_one_replicate_has_no_interval_and_no_verdict() -> None:
    (highest, nothing) = Study(mixed, replicates=1).said()
    assert highest == worded("conclusions.highest_once", named="groups=2", top1="55.0", n=1)
    assert nothing == worded("conclusions.once")


def test_a_single_pair_among_more_replicates_has_no_interval() -> None:
    said = Study(mixed, 3, finished=lambda variant, replicate: variant != "groups=4" or replicate == 2).said()
    (sentence,) = (sentence for sentence in said if sentence.startswith("groups=4 against none: "))
    reason = f": {worded('conclusions.once_no_verdict')}"[:-1]
    assert sentence == said_of("no verdict", SINGLY, "+1.30", n=1, reason=reason, treatment="groups=4")


def test_a_single_contrast_needs_no_correction() -> None:
    study = Study(mixed)
    study.design = replace(study.design, variants=study.design.variants[:2])
    (sentence,) = (sentence for sentence in study.said() if sentence.startswith("Verdicts "))
    assert sentence.startswith(worded("verdicts.method", contrasts=worded("verdicts.contrast")))


def test_a_sequential_study_reports_its_added_replicates() -> None:
    interims = InterimAnalyses((9, 12, 16))
    study = Study(mixed, 12, finished=lambda variant, replicate: variant != "groups=2" or replicate < 9)
    said = study.said(interims)
    assert any(worded("verdicts.looked_at", sizes="9, 12, 16") in sentence for sentence in said)
    # Such a study adds replicates itself, so the warnings about adding them do not apply.
    assert not any("replicates=auto" in sentence for sentence in said)
    (spent,) = (sentence for sentence in said if sentence.startswith("Replicates were added"))
    decided = worded("conclusions.decided", variant="groups=2", interim=9, open="groups=4")
    assert spent == f"{worded('conclusions.added', trained=33, most=48)} {decided}"
    assert any("95 % CI over all interim analyses " in sentence for sentence in said)


def test_nothing_is_decided_before_the_first_interim_analysis() -> None:
    said = Study(mixed, 4).said(InterimAnalyses((9, 12, 16)))
    assert any(
        "undecided (n = 4" in one and one.endswith(": the first interim analysis is at 9 replicates.") for one in said
    )
    undecided = worded("conclusions.undecided", open="groups=2, groups=4")
    assert said[-1] == f"{worded('conclusions.added', trained=12, most=48)} {undecided}"


def lacking(replicates: str) -> str:
    return worded("conclusions.lacking", variant="groups=4", baseline="none", replicates=replicates)


def test_unpaired_replicates_are_named() -> None:
    study = Study(mixed, 12, finished=lambda variant, replicate: variant != "groups=4" or replicate not in (1, 5))
    assert study.results.unfinished["replicate"].tolist() == [1, 5]
    said = warnings(study.results, study.design)
    assert lacking("replicates 1, 5") in said
    assert not any(sentence.startswith("Of groups=2") for sentence in said)


def test_many_missing_pairs_are_truncated() -> None:
    study = Study(mixed, 9, finished=lambda variant, replicate: variant != "groups=4" or replicate >= 7)
    assert lacking("replicates 0, 1, 2, 3, 4, 5, ...") in warnings(study.results, study.design)
    study = Study(mixed, 9, finished=lambda variant, replicate: variant != "groups=4" or replicate != 7)
    assert lacking("replicate 7") in warnings(study.results, study.design)


@pytest.mark.parametrize(
    ("others", "left_out", "sentence"),
    [
        (CellState.INTERRUPTED, 1, worded("conclusions.untrained", cells="1 cell is")),
        (CellState.RUNNING, 1, worded("conclusions.untrained", cells="1 cell is")),
        (None, 2, worded("conclusions.untrained", cells="2 cells are")),
        (CellState.FAILED, 1, worded("conclusions.failed", cells="1 cell", are="is")),
        (CellState.FAILED, 2, worded("conclusions.failed", cells="2 cells", are="are")),
    ],
)
def test_missing_cells_are_counted(others: CellState | None, left_out: int, sentence: str) -> None:
    names = ("groups=4", "groups=2")[:left_out]
    study = Study(mixed, 3, finished=lambda variant, replicate: variant not in names or replicate < 2, others=others)
    said = study.said()
    assert sentence in said
    assert sum("excluded from these means" in one or "not trained yet" in one for one in said) == 1


def test_a_complete_uniform_study_has_no_warnings() -> None:
    study = Study(mixed)
    assert warnings(study.results, study.design) == []


def test_a_variant_computed_in_two_ways_is_named() -> None:
    study = Study(
        mixed,
        change=lambda variant, replicate: {"attention_by": "torch"} if (variant, replicate) == ("groups=4", 2) else {},
    )
    assert warnings(study.results, study.design) == [
        worded("conclusions.mixed_ways", variant="groups=4", ways="kernels and by torch")
    ]
    # Different ways for different variants are not a mixture within one.
    study = Study(mixed, change=lambda variant, _: {"attention_by": "" if variant == "none" else "torch"})
    assert warnings(study.results, study.design) == []


def test_cells_of_different_machines_are_reported() -> None:
    study = Study(mixed, change=lambda _, replicate: {"environment": {"cpu": str(replicate % 2)}})
    (sentence,) = warnings(study.results, study.design)
    assert sentence.startswith(worded("conclusions.mixed_machines", number=2))


def test_a_study_with_only_failures_is_reported_as_such() -> None:
    study = Study(mixed, finished=lambda *_: False, others=CellState.FAILED)
    assert study.said() == [worded("conclusions.none_finished", how="failed")]


def test_all_tied_variants_are_the_highest() -> None:
    said = Study(lambda variant, replicate: 50.0 + replicate + (variant != "none")).said()
    assert said[0] == worded("conclusions.highest", named="groups=2 and groups=4", top1="54.5", n=8)


def test_the_highest_baseline_is_identified_as_baseline() -> None:
    said = Study(lambda variant, replicate: 50.0 + replicate + (variant == "none")).said()
    assert said[0].startswith("Highest: none (the baseline), 54.5 [")


def test_diverged_replicates_are_counted_by_variant_with_their_effect_on_the_mean() -> None:
    made = design(3)
    cells = [
        diverged(cell) if (cell.variant, cell.replicate) == ("groups=4", 1) or cell.variant == "groups=2" else cell
        for cell in stored(made, finished=9)
    ]
    results = collect(made, cells)
    said = warnings(results, made)
    mean = worded("conclusions.mean_of_others")
    assert worded("conclusions.diverged", variant="groups=4", number=1, replicates=3, mean=mean) in said
    assert worded("conclusions.diverged", variant="groups=2", number=3, replicates=3, mean="it has no mean") in said
    assert not any("failed" in sentence or "not trained yet" in sentence for sentence in said)
    names = [variant.name for variant in made.variants]
    summaries = summarise(results.cells, names, made.baselines, [], results.diverged)
    assert {summary.variant: summary.replicates for summary in summaries} == {
        "none": "3",
        "groups=4": "2 (+1 diverged)",
    }
    everything = collect(made, [diverged(cell) for cell in cells])
    assert conclusions(analysis_of(everything, made)) == [worded("conclusions.none_finished", how="diverged")]


def test_micro_batches_are_reported_as_a_mixture_of_protocols() -> None:
    made = design()
    cells = stored(made, finished=6)
    parted = replace(cells[1], outcome={**(cells[1].outcome or {}), "micro_batches": 2})
    said = warnings(collect(made, [cells[0], parted, *cells[2:]]), made)
    assert said == [worded("conclusions.mixed_batches", cells="1 cell", variant=cells[1].variant)]
