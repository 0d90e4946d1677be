from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.config.compose import compose_config
from ablations.design import Design, make_design
from ablations.design.declaration import Change, Declaration, History, keeps_replicates

DESIGN = make_design(
    compose_config(["device=cpu", "sweep.factors.attention.groups=[1,4]", "sweep.margin=1", "replicates=3"])
)
FIRST = Declaration.of(DESIGN, commit="0a1b2c3d", command="python", time="2026-11-29T14:02:11+00:00")
LATER = "2026-11-30T09:00:00+00:00"

OTHERS: dict[str, dict[str, Any]] = {
    "question": {"question": "Why?"},
    "metric": {"metric": "test_loss"},
    "margin": {"margin": 0.5},
    "baseline": {"baseline": "groups=1", "contrasts": (("none", "groups=1"), ("groups=4", "groups=1"))},
    "contrasts": {"contrasts": FIRST.contrasts[:1]},
    "replicates": {"replicates": 5},
}


def changed(*names: str) -> Declaration:
    values = {key: value for name in names for key, value in OTHERS[name].items()}
    return replace(FIRST, time=LATER, **values)


def test_a_design_declares_its_contrasts_metric_and_margin() -> None:
    assert FIRST.contrasts == (("groups=1", "none"), ("groups=4", "none"))
    assert (FIRST.metric, FIRST.margin, FIRST.margin_text) == ("top1", 1.0, "1 point")
    assert (FIRST.replicates, FIRST.replicates_text, FIRST.baseline) == (3, "3", "none")
    assert FIRST.protocol == DESIGN.protocol
    assert FIRST.variants == ("none", "groups=1", "groups=4")


def test_interim_analyses_are_declared_with_the_maximum_number_of_replicates() -> None:
    auto = make_design(compose_config(["device=cpu", "replicates=auto"]))
    declared = Declaration.of(auto, (8, 12, 32))
    assert (declared.analyses, declared.replicates) == ((8, 12, 32), 32)
    assert declared.replicates_text == "auto (8 to 32)"


def test_more_replicates_of_baselines_are_declared() -> None:
    design = make_design(compose_config(["device=cpu", "replicates=3", "baseline_replicates=6"]))
    assert Declaration.of(design).replicates_text == "3 (baselines 6)"
    assert Declaration.of(design).changes_since(Declaration.of(replace(design, baseline_replicates=0))) == [
        Change("replicates", "3", "3 (baselines 6)")
    ]


def test_a_search_declares_no_contrasts() -> None:
    design = make_design(compose_config(["device=cpu", "sweep=search"]))
    assert Declaration.of(design).contrasts == ()


@given(st.sets(st.sampled_from(sorted(OTHERS))))
def test_exactly_the_changes_of_a_declaration_are_listed(names: set[str]) -> None:
    items = [change.what for change in changed(*names).changes_since(FIRST)]
    expected = set(names)
    if "baseline" in names:  # it implies the contrasts
        expected -= {"contrasts"}
    if "metric" in names:  # it changes the unit of the margin
        expected |= {"margin"}
    assert set(items) == expected
    assert len(items) == len(expected)


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_only_a_changed_question_does_not_make_verdicts_exploratory(name: str) -> None:
    changes = changed(name).changes_since(FIRST)
    assert {change.is_exploratory for change in changes} == {name != "question"}


def test_another_commit_command_or_time_is_not_a_change() -> None:
    assert replace(FIRST, commit="x", command="y", time=LATER).changes_since(FIRST) == []


def test_added_and_removed_contrasts_are_listed_up_to_six() -> None:
    added = replace(FIRST, contrasts=(*FIRST.contrasts, ("groups=2", "none")))
    assert added.changes_since(FIRST) == [Change("contrasts", "", "groups=2 against none")]
    assert FIRST.changes_since(added) == [Change("contrasts", "groups=2 against none", "")]
    many = replace(FIRST, contrasts=(*FIRST.contrasts, *((f"v{number}", "none") for number in range(9))))
    (change,) = many.changes_since(FIRST)
    assert change.after.endswith("v5 against none and 3 others")


@given(st.lists(st.sets(st.sampled_from(sorted(OTHERS))), max_size=4))
def test_a_history_can_be_stored_and_read(steps: list[set[str]]) -> None:
    history = History.begun(FIRST)
    for names in steps:
        history = history.then(changed(*names))
    assert History.stored(json.loads(json.dumps(history.as_stored()))) == history
    assert {change.time for change in history.changes} <= {LATER}


def test_without_a_stored_declaration_there_is_no_history() -> None:
    assert History.stored(None) is None


def test_an_equal_declaration_does_not_change_the_history() -> None:
    history = History.begun(FIRST)
    assert history.then(replace(FIRST, time=LATER)) is history
    assert history.deviations(FIRST) == []


def test_a_deviation_has_the_time_of_its_record_if_it_was_recorded() -> None:
    history = History.begun(FIRST).then(changed("margin"))
    (recorded,) = history.deviations(changed("margin"))
    assert (recorded.what, recorded.before, recorded.after, recorded.time) == ("margin", "1", "0.5 points", LATER)
    (reported,) = History.begun(FIRST).deviations(changed("margin"))
    assert reported.time == ""


def test_a_reverted_change_is_not_a_deviation_but_stays_in_the_history() -> None:
    history = History.begun(FIRST).then(changed("margin")).then(FIRST)
    assert history.deviations(FIRST) == []
    assert [(change.before, change.after) for change in history.changes] == [("1", "0.5 points"), ("0.5", "1 point")]


def test_deviations_have_the_number_of_trained_replicates() -> None:
    history = History.begun(FIRST).then(changed("replicates"))
    (deviation,) = history.deviations(FIRST)
    assert (deviation.what, deviation.time) == ("replicates", LATER)
    assert History.begun(FIRST).deviations(replace(FIRST, replicates=1)) == []


def every(design: Design) -> list[tuple[str, int]]:
    return [(cell.variant.name, cell.replicate) for cell in design.cells()]


def test_requesting_fewer_replicates_of_a_complete_study_changes_nothing() -> None:
    fewer, done = replace(FIRST, replicates=1), every(DESIGN)
    assert keeps_replicates(fewer, FIRST, done)
    assert not keeps_replicates(fewer, FIRST, done[:-1])  # this would end the study early
    assert not keeps_replicates(FIRST, FIRST, done)
    assert not keeps_replicates(replace(FIRST, replicates=4), FIRST, done)
    assert keeps_replicates(fewer, replace(FIRST, analyses=(2, 3)), [])
