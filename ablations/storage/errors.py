"""What may be wrong with a store, or with what is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from ablations.common.errors import SuiteError


class StorageError(SuiteError):
    """A store cannot do what it is asked for."""


class StudyNotFoundError(StorageError):
    """Nothing is stored under the name of a study."""


class StudyMismatchError(StorageError):
    """A stored study is not the one that is asked for.

    Args:
        study: its name.
        reason: what is another one, as a clause.
        differences: what differs, a line each.
    """

    def __init__(self, study: str, reason: str, differences: Sequence[str] = ()) -> None:
        self.differences = tuple(differences)
        super().__init__("study", study, reason + "".join(f"\n  {line}" for line in differences))


class StudyFormatError(StorageError):
    """A study was stored by another version of the suite, or by another program.

    Args:
        study: its name.
        stored: the format that it has; None where it is of another program.
        supported: the format that this version reads.
    """

    def __init__(self, study: str, stored: int | None, supported: int) -> None:
        self.stored, self.supported = stored, supported
        reason = "is a study of another program; another name is needed"
        if stored is not None:
            reason = (
                f"is stored in format {stored}; this version of the suite reads format {supported}; another name "
                f"(study={study}-2) or another results_dir starts anew"
            )
        super().__init__("study", study, reason)


class StudyInUseError(StorageError):
    """Another process writes the study.

    Args:
        study: its name.
        reason: how that was found out, as a clause.
    """

    def __init__(self, study: str, reason: str = "is being run by another process; it should be the only one") -> None:
        super().__init__("study", study, reason)
