from __future__ import annotations

from sa_core.errors import OptionError


def test_an_error_has_option_value_reason_and_valid_choices() -> None:
    error = OptionError("groups", 3, "does not fit", (1, 2))
    assert str(error) == "groups=3 does not fit; valid: 1, 2"
    assert (error.option, error.value, error.reason, error.choices) == ("groups", 3, "does not fit", ("1", "2"))


def test_an_error_without_choices_ends_with_the_reason() -> None:
    assert str(OptionError("groups", 3, "does not fit")) == "groups=3 does not fit"


def test_choices_may_be_an_iterator() -> None:
    error = OptionError("stem", "none", "is not known", iter(["imagenet", "cifar"]))
    assert error.choices == ("imagenet", "cifar")
    assert str(error) == "stem=none is not known; valid: imagenet, cifar"


def test_an_option_error_is_caught_as_a_value_error() -> None:
    assert isinstance(OptionError("groups", 3, "does not fit"), ValueError)
