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
def test_the_nearest_names_are_similar_or_have_the_same_last_part(
    word: str, choices: list[str], expected: list[str]
) -> None:
    assert nearest(word, choices) == expected


def test_a_message_names_option_value_reason_and_choices() -> None:
    error = UsageError("sweep", "group", "unknown sweep", ["groups", "norm"])
    assert str(error) == "sweep=group: unknown sweep; did you mean groups? valid: groups, norm"


def test_a_message_without_similar_choices_lists_them_all() -> None:
    assert str(UsageError("device", "quantum", "is not a valid choice", ["auto", "cpu"])).endswith("; valid: auto, cpu")


def test_long_lists_of_choices_are_replaced_by_a_reference_to_the_help() -> None:
    text = str(UsageError("zzz", None, "unknown option", [f"option{i}" for i in range(40)]))
    assert text == "zzz: unknown option; see --help"


@pytest.mark.parametrize("kind", [SuiteError, UsageError])
def test_the_parts_of_a_message_are_attributes(kind: type[SuiteError]) -> None:
    error = kind("sweep", "group", "unknown sweep", ["groups", "norm"])
    assert (error.option, error.value, error.reason) == ("sweep", "group", "unknown sweep")
    assert error.choices == ("groups", "norm")
    assert isinstance(error, SuiteError)
