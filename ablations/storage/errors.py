"""What may be wrong with a store, or with what is asked of it."""

from __future__ import annotations

from ablations.common.errors import SuiteError


class StorageError(SuiteError):
    """A store cannot do what it is asked for."""


class StudyMismatchError(StorageError):
    """A stored study is not the one that is asked for."""


class StudyInUseError(StorageError):
    """Another process writes the study."""


class StudyFormatError(StorageError):
    """A study was stored by another version of the suite or, where `stored` is None, by another program."""

    def __init__(self, study: str, stored: int | None, supported: int) -> None:
        reason = "was created by another program; choose another name"
        if stored is not None:
            reason = (
                f"is stored in format {stored}, but this version reads format {supported}; choose another name "
                f"(study={study}-2) or another results_dir"
            )
        super().__init__("study", study, reason)
