from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.common.errors import UsageError
from ablations.common.names import LONGEST_NAME, check_name, check_sentence, plain_names, visible
from tests.wording import worded

# Characters with a meaning in some syntax, and characters that need other fonts.
VALID = (
    "a", "groups=8", "$x_1^2$", "a|b*c_d`e#f[g](h)", "<b>&amp;</b>", "50 % {x} \\alpha ~", "it's \"so\"", "a  b",
    "größe", "研究", "נתונים", "ध्यान", "می‌خواهم", "👩‍🔬", "[bold]x[/]", ":x:", "C:\\x/y?z#%41", "-1", "=1+1", "NaN",
    "x" * LONGEST_NAME,
)  # fmt: skip


@pytest.mark.parametrize("name", VALID)
def test_a_name_may_have_any_displayable_character(name: str) -> None:
    check_name("sweep.variants", name)
    assert visible(name) == name


@pytest.mark.parametrize(
    "sign", ["\x00", "\t", "\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\udcff"]
)
def test_a_character_that_cannot_be_displayed_is_refused_with_its_code_point(sign: str) -> None:
    for check in (check_name, check_sentence):
        with pytest.raises(UsageError, match=f"U\\+{ord(sign):04X}") as error:
            check("sweep.question", f"a{sign}b")
        assert str(error.value).isprintable()
    assert visible(f"a{sign}b").isprintable()


@pytest.mark.parametrize(
    ("name", "reason"),
    [(" a", "names.spaces"), ("a\u00a0", "names.spaces"), ("x" * (LONGEST_NAME + 1), "names.too_long")],
)
def test_a_name_that_ends_in_space_or_is_too_long_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=worded(reason, longest=LONGEST_NAME)):
        check_name("sweep.variants", name)


@given(st.text())
def test_visible_text_has_no_control_characters_and_valid_text_is_unchanged(text: str) -> None:
    displayed = visible(text)
    assert not {unicodedata.category(sign) for sign in displayed} & {"Cc", "Cs", "Zl", "Zp"}
    assert displayed.encode().decode() == displayed
    assert (displayed == text) == (visible(displayed) == text)


def test_plain_names_are_distinct() -> None:
    names = ["groups=4", "w/o CS", "w o CS", "latest", "v2", "größe=研究", "/", "x" * 300, "x" * 301]
    plain = plain_names(names)
    assert list(plain.values())[:6] == ["groups-4", "w-o-CS", "w-o-CS-2", "variant-latest", "variant-v2", "größe-研究"]
    assert len(set(plain.values())) == len(names)
    assert all(re.fullmatch(r"[\w-]+", name) and len(name.encode()) < 220 for name in plain.values())
    assert plain_names([*names, *names]) == plain
