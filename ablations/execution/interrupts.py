"""Handles SIGINT and SIGTERM at points where no write is in progress."""

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
GRACE = 6.0  # seconds between a signal and the forced end of the process


class StudyInterruptedError(BaseException):
    """SIGINT (Ctrl-C) or SIGTERM requested the end of the run."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(signal.Signals(number).name)


class Interrupts:
    """Converts SIGINT and SIGTERM into an exception at points where no write is in progress.

    The first signal is recorded; `check` raises it, or the handler does within `at_once`. A second signal has its
    default effect. If the process still runs `GRACE` seconds after the first signal, in a long operation, it is ended
    at once, and the next run cleans up. Python handles signals in the main thread only; in other threads this class
    does nothing.
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
        """Raises StudyInterruptedError if a signal was received."""
        if self._received is not None:
            raise StudyInterruptedError(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal interrupt the enclosed code immediately instead of at the next `check`."""
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
