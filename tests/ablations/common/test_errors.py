from __future__ import annotations

import pytest

from ablations.common.errors import SuiteError, UsageError, nearest


@pytest.mark.parametrize(
    ("word", "choices", "expected"),
    [
        ("group", ["groups", "shuffle"], ["groups"]),
        ("epochs", ["train.epochs", "seed"], ["train.epochs"]),  # the end of a dotted name
        ("x", ["alpha", "beta"], []),
        ("", [], []),
    ],
)
def test_the_nearest_names_are_those_that_look_alike(word: str, choices: list[str], expected: list[str]) -> None:
    assert nearest(word, choices) == expected


def test_a_message_names_option_value_reason_and_choices() -> None:
    error = UsageError("sweep", "group", "unknown sweep", ["groups", "norm"])
    assert str(error) == "sweep=group: unknown sweep; did you mean groups? valid: groups, norm"


def test_a_message_without_near_choices_lists_them_all() -> None:
    assert str(UsageError("device", "quantum", "is not a valid choice", ["auto", "cpu"])).endswith("; valid: auto, cpu")


def test_choices_that_are_too_many_to_read_are_left_to_the_help() -> None:
    text = str(UsageError("zzz", None, "unknown option", [f"option{i}" for i in range(40)]))
    assert text == "zzz: unknown option; see --help"


@pytest.mark.parametrize("kind", [SuiteError, UsageError])
def test_the_parts_of_a_message_can_be_read_without_its_text(kind: type[SuiteError]) -> None:
    error = kind("sweep", "group", "unknown sweep", ["groups", "norm"])
    assert (error.option, error.value, error.reason) == ("sweep", "group", "unknown sweep")
    assert error.choices == ("groups", "norm")
    assert isinstance(error, SuiteError)
