from __future__ import annotations

from ablations.common.errors import SuiteError, UsageError
from ablations.data.source import DataError


def test_what_is_wrong_with_data_can_be_told_from_what_was_typed() -> None:
    error = DataError("data.root", "data", "no such folder")
    assert (error.option, error.value, error.reason) == ("data.root", "data", "no such folder")
    assert isinstance(error, SuiteError)
    assert not isinstance(error, UsageError)
