from __future__ import annotations

from ablations.common.errors import SuiteError, UsageError
from ablations.data.source import DataError


def test_a_data_error_is_not_a_usage_error() -> None:
    error = DataError("data.root", "data", "no such folder")
    assert (error.option, error.value, error.reason) == ("data.root", "data", "no such folder")
    assert isinstance(error, SuiteError)
    assert not isinstance(error, UsageError)
