"""The lock on a file, which the kernel keeps as long as the process lives."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path

from ablations.common.files import refusals_explained
from ablations.storage.lock.base import DESCRIPTORS, Holder, refusal


class StudyFileLock:
    """A lock on a file, in which stands who holds it.

    Args:
        path: of the file; it stays there.
        study: what is held.
        option: and its value, which the user has to mend where the file cannot be written.
        caveat: what this does not guard against; empty where it is enough.
    """

    def __init__(self, path: Path, study: str, option: tuple[str, str], caveat: str = "") -> None:
        self._path, self._study, self._option, self.caveat = path, study, option, caveat
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes the lock, and writes down who has it.

        Raises:
            StorageError: if another process holds it, or the file cannot be written.
        """
        with refusals_explained(*self._option, f" ({self._path})"):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if isinstance(error, BlockingIOError):
                    raise refusal(self._study, self._holder()) from None
                raise
        self._descriptor = descriptor
        DESCRIPTORS.add(descriptor)
        with suppress(OSError):  # on a full disk the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(vars(Holder.here())).encode(), 0)

    def keep(self) -> None:
        """Does nothing: the kernel keeps it as long as the process lives."""

    def release(self) -> None:
        """Lets go."""
        if self._descriptor is not None:
            DESCRIPTORS.discard(self._descriptor)
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def _holder(self) -> Holder | None:
        try:
            return Holder(**json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # half written, or not by us
            return None
