"""The error of a data set that cannot be had as it was asked for."""

from __future__ import annotations

from ablations.common.errors import SuiteError


class DataError(SuiteError):
    """Images are not there, are damaged, cannot be stored, or are not those that a subset asks for."""
