from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ablations.analysis.multiverse import Agreement
from ablations.common.metrics import METRICS
from ablations.common.wording import listed
from ablations.reporting.text.multiverse import (
    agreement_sentences,
    agreement_word,
    differing_options,
    is_decided,
    margin_text,
    multiverse_sentences,
    tally_sentence,
)
from ablations.stats import Verdict
from tests.builders.multiverses import moved, multiverse_analysis, protocol_frame
from tests.wording import worded

TOPS = {"quick": moved(2.0, 0.5), "cifar": moved(2.0, -2.5)}


def test_each_contrast_has_a_sentence_with_its_verdicts() -> None:
    frame = protocol_frame(
        {
            "a": {"w": "helps", "x": "helps", "y": "helps", "z": "undecided"},
            "b": {"w": "helps", "x": "undecided", "y": "hurts", "z": "undecided"},
            "c": {"w": "helps", "x": "helps", "y": "helps", "z": "undecided"},
        }
    )
    assert agreement_sentences(frame) == [
        worded("multiverse.agree", variant="w", baseline="none", verdict="helps"),
        worded("multiverse.compatible", variant="x", baseline="none", clauses="helps under a and c; undecided under b"),
        worded("multiverse.contradict", variant="y", baseline="none", clauses="helps under a and c; hurts under b"),
        worded("multiverse.agree", variant="z", baseline="none", verdict="undecided"),
    ]


def test_contrasts_are_counted_by_agreement() -> None:
    found = [Agreement.OPEN, Agreement.AGREES, Agreement.OPEN, Agreement.CONTRADICTS]
    counted = "1 agree, 1 contradict, 2 undecided under all"
    assert tally_sentence(found, 3) == worded("multiverse.tally", number=4, protocols=3, counted=counted)
    assert tally_sentence(found[:1], 2, ("study", "studies", "in")).endswith("1 undecided in all.")
    assert len({agreement_word(kind) for kind in Agreement}) == len(Agreement)


def test_a_report_has_differing_effects_and_the_tests(tmp_path: Path) -> None:
    text = "\n".join(multiverse_sentences(multiverse_analysis(tmp_path, TOPS, 8)))
    start = worded("multiverse.differs", variant="groups=4", baseline="none", protocol="quick", other="cifar")
    assert f"{start}+3.00 [" in text
    assert worded("multiverse.flips") in text
    assert worded("multiverse.moderated") not in text
    alike = {"quick": moved(0.3, 0.5), "cifar": moved(0.3, 0.5)}
    text = "\n".join(multiverse_sentences(multiverse_analysis(tmp_path, alike, {"quick": 3, "cifar": 8})))
    assert worded("multiverse.flips") in text
    assert worded("multiverse.moderated") in text
    different = {"quick": moved(0.3, 0.5, scale=0.5), "cifar": moved(0.31, 0.5, scale=0.7)}
    text = "\n".join(multiverse_sentences(multiverse_analysis(tmp_path, different, 8)))
    assert worded("multiverse.same_effects") in text


def test_a_report_describes_the_correction_with_interim_analyses(tmp_path: Path) -> None:
    text = "\n".join(multiverse_sentences(multiverse_analysis(tmp_path, TOPS, 12, interims=(8, 12))))
    assert worded("multiverse.bonferroni", protocols=2) in text
    assert worded("multiverse.flips") not in text


def test_a_report_of_single_replicates_has_no_tests(tmp_path: Path) -> None:
    sentences = multiverse_sentences(multiverse_analysis(tmp_path, TOPS, 1))
    assert worded("multiverse.single") in sentences


def test_a_report_lists_missing_results(tmp_path: Path) -> None:
    text = "\n".join(multiverse_sentences(multiverse_analysis(tmp_path, {**TOPS, "imagenet": None}, 8)))
    assert worded("multiverse.lacking", protocols="imagenet") in text
    alone = multiverse_sentences(multiverse_analysis(tmp_path, {"quick": TOPS["quick"], "cifar": None}, 8))
    assert alone[0] == worded("multiverse.one")


def test_a_report_lists_protocols_with_exploratory_verdicts(tmp_path: Path) -> None:
    analysis = multiverse_analysis(tmp_path, TOPS, 8)
    known = analysis.studies["cifar"]
    undeclared = replace(known, attributes={**known.attributes, "declared": None})
    analysis = replace(analysis, studies={**analysis.studies, "cifar": undeclared})
    start = worded("multiverse.exploratory", protocols="cifar")
    assert [one for one in multiverse_sentences(analysis) if one.startswith(start)]


def test_equal_margins_are_written_once() -> None:
    metric = METRICS["top1"]
    assert margin_text({"a": 0.2, "b": 0.2}, metric) == "0.2 points"
    assert margin_text({"a": 1.0, "b": 0.2, "c": 1.0}, metric) == "1 point (a and c), 0.2 points (b)"
    assert listed(["a", "b", "c"]) == "a, b and c"


def test_differing_options_are_listed_with_their_values(tmp_path: Path) -> None:
    tops = {"quick+resnet20": moved(1, 1), "cifar": moved(1, 1)}
    assert differing_options(multiverse_analysis(tmp_path, tops)) == {
        "train.epochs": {"quick+resnet20": "4", "cifar": "30"},
        "train.batch_size": {"quick+resnet20": "32", "cifar": "128"},
        "train.learning_rate": {"quick+resnet20": "0.3", "cifar": "0.4"},
        "model": {"quick+resnet20": "resnet20", "cifar": "resnet8"},
    }


@pytest.mark.parametrize("verdict", Verdict)
def test_decided_verdicts_are_helps_hurts_and_equivalent(verdict: Verdict) -> None:
    assert is_decided(verdict.value) == (verdict in (Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT))
