"""What every lock on a study has: who holds it, how it is refused, and that no child inherits it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ablations.storage.errors import StudyInUseError

DESCRIPTORS: set[int] = set()  # of locks and sessions that this process holds


def _let_go_in_child() -> None:
    # A child that outlives the driver would keep its lock; and one that ends would end its session.
    if DESCRIPTORS:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in DESCRIPTORS:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        DESCRIPTORS.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


@dataclass(frozen=True)
class Holder:
    """Who holds a study: host, process, and since when."""

    host: str
    process: int
    since: str

    @classmethod
    def here(cls) -> Holder:
        """Returns this process, from now on."""
        return cls(socket.gethostname(), os.getpid(), time_text(datetime.now()))

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


def time_text(moment: datetime) -> str:
    """Writes a moment in local time, to the second."""
    return moment.astimezone().isoformat(" ", "seconds")


def refusal(study: str, holder: Holder | None) -> StudyInUseError:
    """Returns the error for a study that another process holds; `holder` is None where it is not known."""
    who = f": {holder}" if holder else ""
    return StudyInUseError(study, f"is being run by another process, which is its only writer{who}")


class Lock(Protocol):
    """Holds a study."""

    caveat: str

    def take(self) -> None:
        """Takes the lock; raises StorageError if another process has it, or nobody can be asked."""

    def keep(self) -> None:
        """Makes sure that the lock is still held; raises StudyInUseError if another process has it by now."""

    def release(self) -> None:
        """Lets go."""
