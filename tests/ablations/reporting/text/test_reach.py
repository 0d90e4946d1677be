from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.reporting.text.reach import (
    Reach,
    baseline_sentences,
    detection_sentence,
    effect_sentence,
    efficiency_sentence,
    margin_sentence,
    nothing_sentence,
    reach_sentences,
    unknown_sentences,
)
from ablations.stats import InterimAnalyses, detectable, reachable_margin
from tests.builders.frames import frame
from tests.wording import worded


def design(replicates: int | str = 8, *overrides: str) -> Design:
    groups = "sweep.factors.attention.groups=[1,2,4]"
    return make_design(compose_config(["device=cpu", groups, f"replicates={replicates}", "sweep.margin=1", *overrides]))


NOTHING = frame({})
DRAWS = np.random.default_rng(0).standard_normal((4, 12))


def cells(n: int = 8, **scales: float) -> pd.DataFrame:
    """Cells of four variants with the given standard deviations, 1 by default."""
    names = {"none": "none", "one": "groups=1", "two": "groups=2", "four": "groups=4"}
    values: Mapping[str, Sequence[float]] = {
        shown: list(60 + scales.get(name, 1.0) * DRAWS[place, :n]) for place, (name, shown) in enumerate(names.items())
    }
    return frame(values)


def number(pattern: str, sentence: str | None) -> float:
    assert sentence is not None
    found = re.search(pattern, sentence)
    assert found is not None, sentence
    return float(found.group(1))


def test_a_study_reports_its_detectable_effect_and_reachable_margin() -> None:
    reach = Reach.trained(design(), cells(), None)
    found, margin = detection_sentence(reach), margin_sentence(reach)
    assert found is not None
    assert found.startswith(worded("reach.detects", replicates=8, contrasts=3, effect=""))
    typical = reach.typical
    assert typical is not None
    effect, least = detectable(typical, 8, 3), reachable_margin(typical, 8, 3)
    assert effect is not None
    assert least is not None
    assert number(r": ([\d.]+) points in a typical", found) == pytest.approx(effect, rel=0.05)
    assert number(r": ([\d.]+) points in a typical", margin) == pytest.approx(least, rel=0.05)
    assert number(r"the chosen margin of 1 requires ([\d,]+) replicates", margin) > 8
    assert [sentence.partition(" ")[0] for sentence in reach_sentences(reach)] == ["Relative", "Minimum", "Smallest"]


def test_a_reachable_margin_needs_no_more_replicates() -> None:
    said = margin_sentence(Reach.trained(replace(design(), margin=50.0), cells(), None))
    assert said is not None
    assert said.endswith("; the chosen margin is 50.")


def test_a_contrast_with_a_much_larger_spread_is_reported_beside_the_typical_one() -> None:
    even, uneven = (Reach.trained(design(), cells(four=scale), None) for scale in (1.0, 9.0))
    assert even.worst is None
    assert uneven.worst is not None
    assert uneven.worst[0] == "groups=4"
    said = detection_sentence(uneven)
    assert number(r"([\d.]+) points for groups=4", said) > 2 * number(r": ([\d.]+) points in a typical", said)
    assert "points for groups=4" in str(margin_sentence(uneven))
    text, wanted = effect_sentence(uneven, 2.0)
    assert wanted is not None
    assert number(r"for groups=4 ([\d,]+) replicates", text) > wanted


def test_the_detectable_effect_decreases_with_replicates_and_increases_with_interim_analyses() -> None:
    def size(reach: Reach) -> float:
        return number(r": ([\d.]+) points in a typical", detection_sentence(reach))

    interims = InterimAnalyses((9, 12, 16))
    auto = Reach.planned(design("auto", "replicates.max=16"), cells(), interims)
    assert (auto.n, auto.level) == (16, interims.levels(3)[-1])
    assert size(Reach.planned(design(400), cells(), None)) < size(auto)
    assert size(Reach(design(), cells(), 16)) <= size(auto) < size(Reach(design(), cells(), 8))


def test_another_metric_has_its_unit() -> None:
    made = design(8, "judge.metric=test_loss", "sweep.margin=0.01")
    reach = Reach.trained(made, cells().rename(columns={"top1": "test_loss"}), None)
    assert " nats in a typical contrast" in str(detection_sentence(reach))
    assert "the chosen margin of 0.01 requires" in str(margin_sentence(reach))


@pytest.mark.parametrize("known", [NOTHING, cells(1), cells(4).assign(top1=50.0)])
def test_without_a_spread_there_are_no_sentences_in_points(known: pd.DataFrame) -> None:
    reach = Reach.planned(design(), known, None)
    assert not reach.typical
    assert (detection_sentence(reach), margin_sentence(reach)) == (None, None)


def test_without_stored_cells_effects_are_in_standard_deviations() -> None:
    reach = Reach.planned(design(3), NOTHING, None)
    power, within, sizes = unknown_sentences(reach, 0.0)
    effect, least = detectable(1.0, 3, 3), reachable_margin(1.0, 3, 3)
    assert effect is not None
    assert least is not None
    assert power == worded("reach.unknown", replicates=3, contrasts=3, effect=f"{effect:.1f}", margin=f"{least:.1f}")
    assert within == worded("reach.within", margin="1 point", sd=f"{1 / least:.2f}")
    numbers = [int(found) for found in re.findall(r"SD (\d+) replicates", sizes)]
    assert numbers == sorted(numbers, reverse=True)
    assert sizes == worded("reach.sizes", half=numbers[0], one=numbers[1], two=numbers[2])
    assert unknown_sentences(reach, 3.0)[2] == worded("reach.found", effect=3, sd=f"{3 / effect:.1f}")


def test_decisions_impossible_at_any_spread_are_reported() -> None:
    reach = Reach.planned(design(1), NOTHING, None)
    assert unknown_sentences(reach, 3.0)[0] == nothing_sentence(reach)
    assert nothing_sentence(reach).startswith(worded("reach.one"))
    # Tests for fewer than six replicates are not available for interim analyses.
    few = Reach(design(), NOTHING, 4, level=0.01)
    assert nothing_sentence(few) == worded("reach.none", replicates=4, contrasts=3)
    assert unknown_sentences(few, 0.0)[0] == nothing_sentence(few)
    assert detection_sentence(replace(few, cells=cells())) == nothing_sentence(few)


def test_a_higher_power_of_fewer_replicates_is_reported_with_the_reason() -> None:
    six, eight = (detection_sentence(Reach(design(), cells(), n)) for n in (6, 12))
    assert "With 5 replicates" in str(six)
    assert "With 5 replicates" not in str(eight)


def test_pairing_gains_by_common_variation_of_replicates() -> None:
    reach = Reach.trained(design(), cells(), None)
    assert str(efficiency_sentence(reach)).startswith(worded("reach.efficiency", gain=""))
    assert efficiency_sentence(replace(reach, cells=cells(2))) is None


def test_the_gain_of_more_baseline_replicates_is_reported_if_the_baseline_has_most_of_the_variance() -> None:
    reach = Reach.planned(design(), cells(12, none=3.0), None)
    (said,) = baseline_sentences(reach)
    share = reach.shares["none"]
    start = worded("reach.carries", baseline="none", share=f"{100 * share:.0f}", more="16 or 32", first=16)
    assert said.startswith(start)
    first, second = (float(one) for one in re.findall(r"([01]\.\d\d) (?:or|times)", said))
    assert (first, second) == pytest.approx([(1 - share + share / m) ** 0.5 for m in (2, 4)], abs=0.006)
    assert 0.5 < second < first < 1


@pytest.mark.parametrize(
    ("made", "known"),
    [
        (design(), cells(12, none=0.2)),
        (design(), cells(4, none=3.0)),  # too few to estimate the share
        (design("auto"), cells(12, none=3.0)),
        (design(8, "baseline_replicates=16"), cells(12, none=3.0)),
    ],
)
def test_more_baseline_replicates_are_suggested_only_if_possible_and_known_to_help(
    made: Design, known: pd.DataFrame
) -> None:
    assert baseline_sentences(Reach.planned(made, known, None)) == []


def test_a_report_explains_extra_baseline_replicates() -> None:
    reach = Reach.trained(design(8, "baseline_replicates=24"), cells(), None)
    assert reach_sentences(reach)[0] == worded("reach.shared", runs=3, replicates=24)


def test_extra_baseline_replicates_reduce_the_detectable_effect() -> None:
    known = cells(12, none=3.0)
    plain = Reach.planned(design(), known, None)
    doubled, quadrupled = (Reach.planned(design(8, f"baseline_replicates={n}"), known, None) for n in (16, 32))
    sizes = [reach.typical for reach in (plain, doubled, quadrupled)]
    assert all(size is not None for size in sizes)
    assert sizes == sorted(sizes, reverse=True)  # type: ignore[type-var]
