"""The connection to a store with outages: a state machine.

An unreachable store does not stop a study, and a store that accepts requests but never responds does not slow it:
updates are queued, and a thread probes the store periodically.

| state | meaning | action of a call (`attempt`) | transition |
| --- | --- | --- | --- |
| CONNECTED | the store has all updates | sends the request | failure: LOST |
| LOST | a request failed, or its response was lost | none: the caller queues its update | `_ask`: REACHABLE |
| REACHABLE | the store responds; its content is unknown | reads its content | success: BEHIND; failure: LOST |
| BEHIND | the missing updates are known | sends some of them, then the request | all sent: CONNECTED; failure: LOST |

One call may pass from REACHABLE to CONNECTED. `close` ends the probing in any state; it may set a LOST store to
REACHABLE, so that the last call tries it once more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import ParamSpec

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between two probes of a lost store
CATCH_UP_SECONDS = 2.0  # per call, for sending missing updates

_P = ParamSpec("_P")


class State(Enum):
    """A connection's state, as in the module's table."""

    CONNECTED = auto()
    LOST = auto()
    REACHABLE = auto()
    BEHIND = auto()


class Connection:
    """Sends requests while the store responds, and missing updates after an outage.

    Args:
        probe: checks in a separate thread whether the store responds; raises if not.
        reconnect: reads the content of a store after an outage.
        send_pending: sends queued updates, for at most the given seconds unless None; returns whether all were sent.
        explain: returns an error's message in one line.
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
        self.lost: str | None = None  # the reason, while LOST or REACHABLE
        self.was_lost = False  # at any time
        self._closed, self._leaving_lost = threading.Event(), threading.Lock()
        self._pause, self._connected_since = FIRST_PAUSE, time.monotonic()

    def attempt(self, action: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Reconnects and catches up as the state requires, then calls `action`; raises none of their errors."""
        if self.state is State.LOST:
            return
        try:
            if self.state is State.REACHABLE:
                self._reconnect()
                self.state, self.lost, self._connected_since = State.BEHIND, None, time.monotonic()
            self.catch_up(CATCH_UP_SECONDS)
            action(*args, **kwargs)
        except Exception as error:  # no failure of the mirror fails the study
            self.lose(error)

    def catch_up(self, seconds: float | None = None) -> None:
        """Sends missing updates, for at most `seconds`; raises the errors of sending."""
        if self.state is State.BEHIND and self._send_pending(seconds):
            self.state = State.CONNECTED

    def lose(self, error: Exception) -> None:
        """Records a failed request, and starts a thread that probes the store."""
        self.state, self.lost, self.was_lost = State.LOST, self._explain(error), True
        # An unstable store is probed at growing intervals.
        soon = time.monotonic() - self._connected_since < LONGEST_PAUSE
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if soon else FIRST_PAUSE
        if not self._closed.is_set():
            threading.Thread(target=self._ask, args=(self._pause,), daemon=True, name="mlflow-answers").start()

    def close(self, *, retry: bool) -> None:
        """Ends the probing; with `retry`, the next call tries a lost store once more."""
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
        with self._leaving_lost:  # a probe may succeed in its thread during `close`
            if self.state is State.LOST:
                self.state = State.REACHABLE
