from __future__ import annotations

from pathlib import Path

import pytest

from ablations.common.errors import UsageError
from ablations.common.parts import RAISE, Parts, reason_of


def fail(error: BaseException) -> None:
    raise error


def test_a_failed_part_is_recorded_and_replaced_by_the_default(tmp_path: Path) -> None:
    parts = Parts()
    assert parts.make("sum", 0, sum, [1, 2]) == 3
    assert parts.make("bad", "default", fail, ValueError("no\nsecond line")) == "default"
    assert [(missing.name, missing.reason) for missing in parts.missing] == [("bad", "ValueError: no")]
    path = parts.write_tracebacks(tmp_path / "tracebacks.txt")
    assert path is not None
    assert "second line" in path.read_text(encoding="utf-8")
    assert Parts().write_tracebacks(path) is None
    assert not path.exists()


def test_of_two_records_of_a_name_the_first_is_kept() -> None:
    parts = Parts()
    parts.leave_out("cell", "first")
    parts.leave_out("cell", "second")
    assert [missing.reason for missing in parts.missing] == ["first"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), BrokenPipeError()])
def test_exceptions_that_end_the_process_are_raised(error: BaseException) -> None:
    with pytest.raises(type(error)):
        Parts().make("part", None, fail, error)


def test_with_raises_errors_are_raised_and_not_recorded() -> None:
    with pytest.raises(ValueError, match="no"):
        RAISE.make("part", None, fail, ValueError("no"))
    RAISE.leave_out("part", "reason")
    assert RAISE.missing == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "ValueError"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("a\x1b[31m"), "ValueError: a\\x1b[31m"),
        (RuntimeError("postgresql://me:secret@host/db"), "RuntimeError: postgresql://me:***@host/db"),
        (UsageError("study", "x", "is wrong"), "study=x: is wrong"),
    ],
)
def test_a_reason_is_one_printable_line_without_secrets(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_failure_to_write_tracebacks_is_ignored(tmp_path: Path) -> None:
    parts = Parts()
    parts.make("bad", None, fail, ValueError("no"))
    (tmp_path / "file").write_text("")
    assert parts.write_tracebacks(tmp_path / "file" / "tracebacks.txt") is None
