"""What is said of a study is the verdict and what it rests on, and no more than that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ablations.analysis.results import Results, collect
from ablations.analysis.study import StudyAnalysis
from ablations.design import Design
from ablations.reporting.text.conclusions import conclusions, contrast_sentence, detection_sentence, warnings
from ablations.stats import Contrast, Estimate, Looks, Verdict, summarise
from ablations.storage.cells import CellState
from ablations.storage.study import StoredCell
from tests.builders.cells import configuration, design, diverged, stored

CLEAR = Estimate(8, 1.5, 1.0, 2.0)
LOST = Estimate(8, -1.5, -2.0, -1.0)
SMALL = Estimate(8, -0.03, -0.11, 0.06)
EQUAL = Estimate(4, 1.0, 1.0, 1.0)
SINGLE = Estimate(1, 1.0, math.nan, math.nan)


def contrast(difference: Estimate | None, verdict: Verdict, **others: Any) -> Contrast:
    values: dict[str, Any] = {"bca": None, "p": None, "p_equivalence": None} | others
    return Contrast("sa", "none", difference, verdict=verdict, **values)


@pytest.mark.parametrize(
    ("judged", "sentence"),
    [
        (contrast(CLEAR, Verdict.HELPS, p=0.01), "helps (n = 8, difference +1.50, 95 % CI +1.00 to +2.00, p = 0.01)."),
        (contrast(LOST, Verdict.HURTS, p=0.04), "hurts (n = 8, difference -1.50, 95 % CI -2.00 to -1.00, p = 0.04)."),
        (
            contrast(LOST, Verdict.HURTS, p=0.0002, look=8),
            "hurts (n = 8, difference -1.50, 95 % CI over all looks -2.00 to -1.00, p = 0.001 or less).",
        ),
        (
            contrast(SMALL, Verdict.EQUIVALENT, p=0.4, p_equivalence=0.001),
            "equivalent within 0.25 points (n = 8, difference -0.03, 95 % CI -0.11 to +0.06).",
        ),
        (
            contrast(SMALL, Verdict.EQUIVALENT, p=0.05, p_equivalence=0.001),
            "equivalent within 0.25 points (n = 8, difference -0.03, 95 % CI -0.11 to +0.06); there is a difference, "
            "but a smaller one.",
        ),
        (
            contrast(SMALL, Verdict.UNDECIDED, p=0.4),
            "undecided (n = 8, difference -0.03, 95 % CI -0.11 to +0.06, p = 0.4).",
        ),
        (
            contrast(SMALL, Verdict.UNDECIDED, reason="too few"),
            "undecided (n = 8, difference -0.03, 95 % CI -0.11 to +0.06): too few.",
        ),
        (
            contrast(EQUAL, Verdict.UNDECIDED, reason="no spread to judge it by"),
            "undecided (n = 4, difference +1.00): no spread to judge it by.",
        ),
        (contrast(SINGLE, Verdict.NONE, reason="one is none"), "no verdict (n = 1, difference +1.00): one is none."),
        (contrast(None, Verdict.NONE, reason="no replicate of both is finished"),
         "no verdict, no replicate of both is finished."),
    ],
)  # fmt: skip
def test_every_verdict_is_said_with_what_it_rests_on(judged: Contrast, sentence: str) -> None:
    assert contrast_sentence(judged, 0.25) == f"sa against none: {sentence}"


class Study:
    """A study with accuracies that are made up; cells that are not `finished` are `others`.

    Args:
        top1: by variant and replicate.
        replicates: of the design.
        finished: whether a variant's replicate is.
        others: what is known of the others; None for nothing.
        change: of the outcome's parts, for a variant and replicate.
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

    def said(self, looks: Looks | None = None, **changed: Any) -> list[str]:
        made: Design = replace(self.design, **changed)
        return conclusions(analysis_of(self.results, made, {"looks": list(looks.sizes)} if looks else {}))


def analysis_of(results: Results, made: Design, attributes: Mapping[str, Any] = MappingProxyType({})) -> StudyAnalysis:
    return StudyAnalysis(configuration(), made, results, attributes, Path("unwritten"))


def mixed(variant: str, replicate: int) -> float:
    """groups=2 helps, and of groups=4 nothing is known."""
    wiggle = (1 + 0.1 * replicate) * (-1.0 if replicate % 2 else 1.0)
    return {"none": 50.0 + replicate, "groups=2": 55.0 + 0.9 * replicate, "groups=4": 50.1 + replicate + wiggle}[
        variant
    ]


def test_a_study_is_told_from_the_highest_to_what_it_could_have_seen() -> None:
    highest, helps, open_one, how_sure, gain, power = Study(mixed).said()
    assert highest.startswith("Highest: groups=2, 58.1 [56.3, 60.0] % (n = 8), picked after seeing the results, which")
    assert helps == "groups=2 against none: helps (n = 8, difference +4.65, 95 % CI +4.45 to +4.85, p = 0.016)."
    assert open_one.startswith("groups=4 against none: undecided (n = 8, difference +0.05, 95 % CI -1.1")
    assert open_one.endswith(", p = 0.91).")
    assert how_sure.startswith(
        "Verdicts are by paired tests over seeds, on one set of data, with Holm's correction for 2"
    )
    assert how_sure.endswith("after a look at the verdicts makes them less sure; replicates=auto allows for that.")
    assert gain.startswith("Pairing by replicate was worth ")
    assert power.startswith("With 8 replicates a difference of ")
    assert " One of 0.2, the margin, would take " in power


def test_one_replicate_gets_no_interval_and_no_verdict() -> None:
    (highest, nothing) = Study(mixed, replicates=1).said()
    assert highest == "Highest: groups=2, 55.0 % (n = 1); one replicate says nothing about how sure that is."
    assert nothing == "One replicate a variant: nothing says how sure the differences in the table are."


def test_one_pair_among_more_replicates_gets_no_interval_either() -> None:
    said = Study(mixed, 3, finished=lambda variant, replicate: variant != "groups=4" or replicate == 2).said()
    (sentence,) = (sentence for sentence in said if sentence.startswith("groups=4 against none: "))
    assert sentence.endswith(
        ": no verdict (n = 1, difference +1.30): one replicate says nothing about how sure that is."
    )


def test_a_single_contrast_needs_no_correction() -> None:
    study = Study(mixed)
    study.design = replace(study.design, variants=study.design.variants[:2])
    (sentence,) = (sentence for sentence in study.said() if sentence.startswith("Verdicts "))
    assert ", with a single contrast: helps and hurts" in sentence
    assert "Holm" not in sentence


def test_what_adding_replicates_cost_is_said_of_a_study_that_did_so() -> None:
    looks = Looks((9, 12, 16))
    study = Study(mixed, 12, finished=lambda variant, replicate: variant != "groups=2" or replicate < 9)
    said = study.said(looks)
    assert any(
        sentence.endswith("They and the intervals hold although the study was looked at with 9, 12, 16 replicates.")
        for sentence in said
    )
    # Adding replicates is the study's own business, and so is what more of them would have seen.
    assert not any("replicates=auto" in sentence or "the margin, would take" in sentence for sentence in said)
    (spent,) = (sentence for sentence in said if sentence.startswith("Replicates were added"))
    assert spent == (
        "Replicates were added where verdicts were open: 33 cells of 48 at most. groups=2 was decided with 9; "
        "undecided so far: groups=4."
    )
    assert any("95 % CI over all looks " in sentence for sentence in said)


def test_before_the_first_look_nothing_is_decided() -> None:
    said = Study(mixed, 4).said(Looks((9, 12, 16)))
    assert any("undecided (n = 4" in one and one.endswith(": the first look is at 9 replicates.") for one in said)
    assert said[-1].endswith("12 cells of 48 at most. Undecided so far: groups=2, groups=4.")


def test_replicates_that_only_one_of_a_pair_has_are_named() -> None:
    study = Study(mixed, 12, finished=lambda variant, replicate: variant != "groups=4" or replicate not in (1, 5))
    assert study.results.unfinished["replicate"].tolist() == [1, 5]
    said = warnings(study.results, study.design)
    assert "Of groups=4 and none only one has replicates 1, 5, which the contrast leaves out." in said
    assert not any(sentence.startswith("Of groups=2") for sentence in said)


def test_many_missing_pairs_are_named_no_further_than_one_reads() -> None:
    study = Study(mixed, 9, finished=lambda variant, replicate: variant != "groups=4" or replicate >= 7)
    assert any(
        "only one has replicates 0, 1, 2, 3, 4, 5, ..., which" in one for one in warnings(study.results, study.design)
    )
    study = Study(mixed, 9, finished=lambda variant, replicate: variant != "groups=4" or replicate != 7)
    assert any("only one has replicate 7, which" in one for one in warnings(study.results, study.design))


@pytest.mark.parametrize(
    ("others", "left_out", "sentence"),
    [
        (CellState.INTERRUPTED, 1, "1 cell is not trained yet; what is said here is of the others."),
        (CellState.RUNNING, 1, "1 cell is not trained yet; what is said here is of the others."),
        (None, 2, "2 cells are not trained yet; what is said here is of the others."),
        (CellState.FAILED, 1, "1 cell failed and is in none of these means."),
        (CellState.FAILED, 2, "2 cells failed and are in none of these means."),
        (CellState.PRUNED, 1, "1 variant is in none of these means: the search gave up on them."),
        (CellState.PRUNED, 2, "2 variants are in none of these means: the search gave up on them."),
    ],
)
def test_cells_that_are_not_there_are_counted(others: CellState | None, left_out: int, sentence: str) -> None:
    names = ("groups=4", "groups=2")[:left_out]
    study = Study(mixed, 3, finished=lambda variant, replicate: variant not in names or replicate < 2, others=others)
    said = study.said()
    assert sentence in said
    assert sum("none of these means" in one or "not trained yet" in one for one in said) == 1


def test_a_whole_study_of_one_kind_has_nothing_to_warn_of() -> None:
    study = Study(mixed)
    assert warnings(study.results, study.design) == []


def test_a_variant_that_was_computed_in_two_ways_is_named() -> None:
    study = Study(
        mixed,
        change=lambda variant, replicate: {"attention_by": "torch"} if (variant, replicate) == ("groups=4", 2) else {},
    )
    assert warnings(study.results, study.design) == [
        "Protocols are mixed: groups=4 was computed by kernels and by torch."
    ]
    # Different ways of different variants are what they are; nothing is mixed within one.
    study = Study(mixed, change=lambda variant, _: {"attention_by": "" if variant == "none" else "torch"})
    assert warnings(study.results, study.design) == []


def test_cells_of_different_machines_are_said_to_be() -> None:
    study = Study(mixed, change=lambda _, replicate: {"environment": {"cpu": str(replicate % 2)}})
    (sentence,) = warnings(study.results, study.design)
    assert sentence.startswith(
        "Protocols are mixed: the cells were trained in 2 different environments, listed below: "
    )


def test_a_search_gives_no_verdicts() -> None:
    said = Study(mixed).said(is_search=True)
    assert said[1:] == ["The differences in the table are those of variants that were picked for being good."]


def test_nothing_but_failures_is_said_to_be_that() -> None:
    study = Study(mixed, finished=lambda *_: False, others=CellState.FAILED)
    assert study.said() == ["No cell is finished: every one that was tried failed."]


def test_variants_that_tie_are_all_the_highest() -> None:
    said = Study(lambda variant, replicate: 50.0 + replicate + (variant != "none")).said()
    assert said[0] == (
        "Highest: groups=2 and groups=4, 54.5 % (n = 8), picked after seeing the results, which flatters it."
    )


def test_the_baseline_that_is_highest_is_called_so() -> None:
    said = Study(lambda variant, replicate: 50.0 + replicate + (variant == "none")).said()
    assert said[0].startswith("Highest: none (the baseline), 54.5 [")


def test_what_a_study_detects_is_known_from_two_replicates_that_differ() -> None:
    study = Study(mixed, 4)
    cells, baselines = study.results.cells, study.design.baselines
    assert detection_sentence(8, cells[cells["replicate"] == 0], baselines) is None
    assert detection_sentence(8, cells.assign(top1=50.0), baselines) is None
    assert detection_sentence(4, cells, baselines) == "With 4 replicates the test can decide none of 2 contrasts."
    many = detection_sentence(400, cells, baselines)
    few = detection_sentence(8, cells, baselines)
    part = detection_sentence(400, cells, baselines, share=0.3)

    def size(sentence: str | None) -> float:
        assert sentence is not None
        return float(sentence.split("a difference of ")[1].split(" ")[0])

    assert size(many) < size(part) < size(few)


def test_what_diverged_is_counted_for_each_variant_and_said_of_its_mean() -> None:
    made = design(3)
    cells = [
        diverged(cell) if (cell.variant, cell.replicate) == ("groups=4", 1) or cell.variant == "groups=2" else cell
        for cell in stored(made, finished=9)
    ]
    results = collect(made, cells)
    said = warnings(results, made)
    assert "groups=4 diverged in 1 of 3 replicates: its mean is of the others, which flatters it." in said
    assert "groups=2 diverged in 3 of 3 replicates: it has no mean." in said
    assert not any("failed" in sentence or "not trained yet" in sentence for sentence in said)
    names = [variant.name for variant in made.variants]
    summaries = summarise(results.cells, names, made.baselines, [], results.diverged)
    assert {summary.variant: summary.replicates for summary in summaries} == {
        "none": "3",
        "groups=4": "2 (+1 diverged)",
    }
    everything = collect(made, [diverged(cell) for cell in cells])
    assert conclusions(analysis_of(everything, made)) == ["No cell is finished: every one that was tried diverged."]


def test_batches_in_parts_are_said_to_mix_protocols() -> None:
    made = design()
    cells = stored(made, finished=6)
    parted = replace(cells[1], outcome={**(cells[1].outcome or {}), "micro_batches": 2})
    said = warnings(collect(made, [cells[0], parted, *cells[2:]]), made)
    assert said == [
        f"Protocols are mixed: 1 cell of {cells[1].variant} ran out of memory and took each batch in two parts, which "
        "batch norm sees one by one."
    ]
