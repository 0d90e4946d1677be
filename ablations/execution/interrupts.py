"""SIGINT and SIGTERM, answered at a moment when nothing is half written."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 6.0  # seconds after which a signal ends the process in any case


class StudyInterruptedError(BaseException):
    """Someone asked the run to end: Ctrl-C or SIGTERM."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(signal.Signals(number).name)


class Interrupts:
    """Turns SIGINT and SIGTERM into an exception at a moment when nothing is half written.

    The first signal is noted, and raised where `check` is called or while code runs that may be left `at_once`; a
    second one ends the process as it always would. A process that is still at it some seconds later, in an operation
    that takes so long, ends without more ado: the next run puts in order what it leaves. Only the main thread of a
    process can be told of signals; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._at_once = False
        self._previous: dict[int, object] = {}
        self._watchdog: threading.Timer | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self._watchdog:
            self._watchdog.cancel()

    def check(self) -> None:
        """Raises StudyInterruptedError if a signal has come."""
        if self._received is not None:
            raise StudyInterruptedError(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Has a signal interrupt the code inside, instead of waiting for `check`."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _: FrameType | None) -> None:
        self._received = number
        self._restore()
        self._watchdog = threading.Timer(GRACE, _end, (number,))
        self._watchdog.daemon = True
        self._watchdog.start()
        if self._at_once:
            raise StudyInterruptedError(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}


def _end(number: int) -> None:
    print("Interrupted; the same command resumes this cell.", file=sys.stderr, flush=True)
    os._exit(128 + number)
