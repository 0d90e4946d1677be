from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.analysis.multiverse import Agreement, agreement, agreements
from ablations.stats import Verdict
from tests.builders.multiverses import moved, multiverse_analysis, protocol_frame

DECIDED = (Verdict.HELPS, Verdict.HURTS, Verdict.EQUIVALENT)
OPEN = tuple(verdict for verdict in Verdict if verdict not in DECIDED)
VERDICTS = st.lists(st.sampled_from(Verdict), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((Verdict.HELPS, Verdict.HELPS), Agreement.AGREES),
        ((Verdict.EQUIVALENT, Verdict.EQUIVALENT), Agreement.AGREES),
        ((Verdict.HELPS, Verdict.UNDECIDED, Verdict.HELPS), Agreement.COMPATIBLE),
        ((Verdict.HURTS, Verdict.NONE), Agreement.COMPATIBLE),
        ((Verdict.HURTS, Verdict.UNSTABLE), Agreement.COMPATIBLE),
        ((Verdict.HELPS, Verdict.HURTS), Agreement.CONTRADICTS),
        ((Verdict.HELPS, Verdict.EQUIVALENT, Verdict.UNDECIDED), Agreement.CONTRADICTS),
        ((Verdict.UNDECIDED, Verdict.UNSTABLE), Agreement.OPEN),
    ],
)
def test_agreement_does_not_depend_on_the_order_of_verdicts(verdicts: tuple[Verdict, ...], expected: Agreement) -> None:
    for order in itertools.permutations(verdicts):
        assert agreement(order) is expected


@given(verdicts=VERDICTS)
def test_another_open_verdict_only_turns_agreement_into_compatibility(
    verdicts: list[Verdict],
) -> None:
    before = agreement(verdicts)
    for verdict in OPEN:
        after = agreement([*verdicts, verdict])
        expected = {Agreement.AGREES: Agreement.COMPATIBLE}.get(before, before)
        assert after is expected


@given(verdicts=VERDICTS)
def test_agreement_is_one_decided_verdict_under_all_protocols(verdicts: list[Verdict]) -> None:
    same = len(set(verdicts)) == 1 and verdicts[0] in DECIDED
    assert (agreement(verdicts) is Agreement.AGREES) == same
    assert (agreement(verdicts) is Agreement.OPEN) == (not set(verdicts) & set(DECIDED))
    assert (agreement(verdicts) is Agreement.CONTRADICTS) == (len(set(verdicts) & set(DECIDED)) > 1)


def test_agreement_is_determined_for_each_contrast() -> None:
    frame = protocol_frame({"a": {"x": "helps", "y": "undecided"}, "b": {"x": "hurts", "y": "helps"}})
    assert agreements(frame) == {("x", "none"): Agreement.CONTRADICTS, ("y", "none"): Agreement.COMPATIBLE}


def test_a_contrast_has_a_row_under_each_protocol(tmp_path: Path) -> None:
    analysis = multiverse_analysis(tmp_path, {"quick": moved(2.0, 0.0), "cifar": moved(2.0, -2.0)}, 8)
    frame = analysis.frame
    assert list(zip(frame["protocol"], frame["variant"], strict=True)) == list(
        itertools.product(["quick", "cifar"], ["groups=2", "groups=4"])
    )
    assert frame["verdict"].tolist() == ["helps", "equivalent", "helps", "hurts"]
    assert set(frame["n"]) == {8}
    assert set(frame["margin"]) == {2.0}
    assert analysis.agreements == {
        ("groups=2", "none"): Agreement.AGREES,
        ("groups=4", "none"): Agreement.CONTRADICTS,
    }
    alone = analysis.studies["quick"].contrasts
    assert frame["mean"].tolist()[:2] == [contrast.difference.mean for contrast in alone if contrast.difference]
    assert all(joint >= (contrast.p or 0) for joint, contrast in zip(frame["p"], alone, strict=False))


def test_only_effects_that_differ_between_protocols_are_significant(tmp_path: Path) -> None:
    tops = {"quick": moved(2.0, 0.5), "cifar": moved(2.0, -0.5), "imagenet": moved(2.0, -0.5)}
    analysis = multiverse_analysis(tmp_path, tops, 8)
    interactions = {(each.variant, each.protocol, each.other): each for each in analysis.interactions}
    assert len(interactions) == 2 * 3
    significant = {key for key, interaction in interactions.items() if interaction.p <= 0.05}
    assert significant == {("groups=4", "quick", "cifar"), ("groups=4", "quick", "imagenet")}
    assert interactions["groups=4", "quick", "cifar"].estimate.mean == pytest.approx(1.0)
    p_values = [interaction.p for interaction in analysis.interactions]
    assert p_values == sorted(p_values)


@pytest.mark.parametrize("replicates", [1, {"quick": 3, "cifar": 1}])
def test_an_effect_with_one_replicate_is_not_compared(tmp_path: Path, replicates: int | dict[str, int]) -> None:
    analysis = multiverse_analysis(tmp_path, {"quick": moved(1, 2), "cifar": moved(1, 2)}, replicates)
    assert analysis.interactions == []
    assert len(analysis.frame) == 4


def test_each_protocol_has_the_margin_of_its_data_set(tmp_path: Path) -> None:
    tops = {"digits": moved(0.5, 0.1, scale=0.02), "cifar10": moved(0.5, 0.1, scale=0.02)}
    analysis = multiverse_analysis(tmp_path, tops, 8)
    assert analysis.margins == {"digits": 2.0, "cifar10": 0.2}
    assert analysis.frame["verdict"].tolist() == ["equivalent", "equivalent", "helps", "equivalent"]


def test_a_protocol_without_cells_does_not_affect_others(tmp_path: Path) -> None:
    tops = {"quick": moved(2.0, 2.0), "cifar": None, "imagenet": moved(2.0, 0.0)}
    analysis = multiverse_analysis(tmp_path, tops, 8)
    assert analysis.missing == ["cifar"]
    assert set(analysis.frame["protocol"]) == {"quick", "imagenet"}
    assert analysis.agreements["groups=2", "none"] is Agreement.AGREES
    alone = multiverse_analysis(tmp_path, {"quick": moved(2.0, 2.0), "cifar": None}, 8)
    assert alone.agreements == {}
    assert alone.interactions == []


def test_studies_with_interim_analyses_are_judged_separately_and_corrected_for_protocols(tmp_path: Path) -> None:
    tops = {"quick": moved(2.0, 0.0), "cifar": moved(2.0, 0.0)}
    analysis = multiverse_analysis(tmp_path, tops, 12, interims=(8, 12))
    uncorrected = [contrast.p for study in analysis.studies.values() for contrast in study.contrasts]
    assert np.array_equal(analysis.frame["p"], [min(1.0, 2 * (p or 0)) for p in uncorrected])
    assert analysis.interactions == []
