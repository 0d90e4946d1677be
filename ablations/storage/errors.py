"""Errors of the store."""

from __future__ import annotations

from ablations.common.errors import SuiteError


class StorageError(SuiteError):
    """An operation on the store failed."""


class StudyMismatchError(StorageError):
    """A stored study differs from the requested one."""


class StudyInUseError(StorageError):
    """Another process has locked the study."""


class StudyFormatError(StorageError):
    """A study was stored by another version of the suite or, if `stored` is None, by another program."""

    def __init__(self, study: str, stored: int | None, supported: int) -> None:
        reason = "was created by another program; choose another name"
        if stored is not None:
            reason = (
                f"is stored in format {stored}, but this version reads format {supported}; choose another name "
                f"(study={study}-2) or another results_dir"
            )
        super().__init__("study", study, reason)
