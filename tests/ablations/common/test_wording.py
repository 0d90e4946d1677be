from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.common.wording import first_line, last_line, three_digits


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no room"), "no room"),
        (ValueError("\n\n  no room \nat line 3"), "no room"),
        (ValueError("no room\r\nat line 3"), "no room"),
        (ValueError(), "ValueError"),
        (ValueError(" \n\t\n"), "ValueError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (KeyError("state"), "'state'"),
    ],
)
def test_the_first_line_of_an_error_is_its_first_non_empty_line(error: BaseException, line: str) -> None:
    assert first_line(error) == line


def test_lines_with_a_prefix_can_be_skipped() -> None:
    error = ValueError("(raised as a result of Query-invoked autoflush)\n(sqlite3.OperationalError) no such table: x")
    assert first_line(error, skipping="(raised as") == "(sqlite3.OperationalError) no such table: x"
    assert first_line(ValueError("(raised as a result)"), skipping="(raised as") == "ValueError"


@pytest.mark.parametrize(
    ("value", "text"),
    [(5904.2, "5,900"), (999.6, "1,000"), (42.26, "42.3"), (0.01234, "0.0123"), (1234567, "1,230,000"), (0.0, "0")],
)
def test_three_digits_have_no_exponent(value: float, text: str) -> None:
    assert three_digits(value) == text


@given(st.text(), st.text(max_size=3))
def test_the_first_line_is_a_single_stripped_line(text: str, skipping: str) -> None:
    line = first_line(RuntimeError(text), skipping)
    assert line == line.strip()
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("reason", "line"),
    [("Traceback\n  x\nValueError: no\n", "ValueError: no"), ("", ""), (" \n", ""), (None, ""), (3, "")],
)
def test_the_last_line_of_a_traceback_is_its_last_non_empty_line(reason: object, line: str) -> None:
    assert last_line(reason) == line
