"""The connection to a store that may go away and come back: a state machine.

A store that goes away does not stop a study, nor does one that accepts requests and never answers slow it: updates are
kept, and a thread asks from time to time whether the store answers again.

| state | what is known | what a call (`attempt`) does | what ends it |
| --- | --- | --- | --- |
| CONNECTED | the store has missed nothing | carries out the request | it fails: LOST |
| LOST | a request failed, and may have been carried out | nothing: the caller keeps its update | `_ask`: REACHABLE |
| REACHABLE | the store answers; not what it has | finds out what it has | found: BEHIND; it fails: LOST |
| BEHIND | what the store has missed | sends of that, then the request | all sent: CONNECTED; it fails: LOST |

One call may go from REACHABLE to CONNECTED. `close` ends the asking, whatever the state; it may declare a LOST store
REACHABLE, so that the last call tries it once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import ParamSpec

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two questions whether a lost store answers again
CATCH_UP_SECONDS = 2.0  # for which a call sends at a time what a store missed

_P = ParamSpec("_P")


class State(Enum):
    """A connection's state; the module's table says what each means."""

    CONNECTED = auto()
    LOST = auto()
    REACHABLE = auto()
    BEHIND = auto()


class Connection:
    """Carries out requests while the store answers, and has what it missed sent afterwards.

    Args:
        probe: asks the store for a sign of life, in a thread of its own; raises where there is none.
        reconnect: finds out what a store has that answers again.
        send_pending: sends what was kept, for so many seconds at most if it is given a number; returns whether all was.
        explain: returns what an error says, in a line.
    """

    def __init__(
        self,
        *,
        probe: Callable[[], object],
        reconnect: Callable[[], None],
        send_pending: Callable[[float | None], bool],
        explain: Callable[[Exception], str],
    ) -> None:
        self._probe, self._reconnect, self._send_pending, self._explain = probe, reconnect, send_pending, explain
        self.state = State.CONNECTED
        self.lost: str | None = None  # why the store is LOST, or only REACHABLE
        self.was_lost = False  # at any time
        self._closed, self._leaving_lost = threading.Event(), threading.Lock()
        self._pause, self._connected_since = FIRST_PAUSE, time.monotonic()

    def attempt(self, action: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Does what the state asks for, and then `action`; raises none of their errors."""
        if self.state is State.LOST:
            return
        try:
            if self.state is State.REACHABLE:
                self._reconnect()
                self.state, self.lost, self._connected_since = State.BEHIND, None, time.monotonic()
            self.catch_up(CATCH_UP_SECONDS)
            action(*args, **kwargs)
        except Exception as error:  # whatever ails the mirror is no failure of the study
            self.lose(error)

    def catch_up(self, seconds: float | None = None) -> None:
        """Sends what the store has missed, for so many seconds at most; raises the errors of that."""
        if self.state is State.BEHIND and self._send_pending(seconds):
            self.state = State.CONNECTED

    def lose(self, error: Exception) -> None:
        """Notes that a request failed, and has a thread ask when the store answers again."""
        self.state, self.lost, self.was_lost = State.LOST, self._explain(error), True
        # A store that comes and goes is asked less and less.
        soon = time.monotonic() - self._connected_since < LONGEST_PAUSE
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if soon else FIRST_PAUSE
        if not self._closed.is_set():
            threading.Thread(target=self._ask, args=(self._pause,), daemon=True, name="mlflow-answers").start()

    def close(self, *, retry: bool) -> None:
        """Ends the asking; the next call tries a lost store once more if `retry` is set."""
        self._closed.set()
        if retry:
            self._note_reachable()

    def _ask(self, pause: float) -> None:
        while not self._closed.wait(pause):
            try:
                self._probe()
            except Exception:
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._note_reachable()
                return

    def _note_reachable(self) -> None:
        with self._leaving_lost:  # by two threads at once, if a probe succeeds during `close`
            if self.state is State.LOST:
                self.state = State.REACHABLE
