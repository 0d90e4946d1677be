"""The states of a connection to a store that goes away and comes back, without a store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ablations.tracking import outage
from ablations.tracking.outage import Connection, State


class FakeStore:
    """A store that fails while `answers` is not set, with a connection that keeps `missed` for it."""

    def __init__(self) -> None:
        self.answers = True
        self.missed: list[str] = []
        self.received: list[str] = []
        self.at_once = 100  # how many missed updates are sent at a time
        self.probes = 0
        self.connection = Connection(
            probe=self.probe, reconnect=lambda: self.receive("reconnect"), send_pending=self.send, explain=str
        )

    def probe(self) -> None:
        self.probes += 1
        self.request()

    def request(self) -> None:
        if not self.answers:
            raise ConnectionError("no answer")

    def receive(self, update: str) -> None:
        self.request()
        self.received.append(update)

    def send(self, seconds: float | None) -> bool:
        for update in self.missed[: None if seconds is None else self.at_once]:
            self.receive(update)
            self.missed.remove(update)
        return not self.missed

    def call(self, update: str) -> None:
        self.connection.attempt(self.receive, update)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def store() -> Iterator[FakeStore]:
    made = FakeStore()
    yield made
    made.connection.close(retry=False)


def lose(store: FakeStore) -> None:
    store.answers = False
    store.call("unanswered")
    assert (store.connection.state, store.connection.lost) == (State.LOST, "no answer")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def bring_back(store: FakeStore) -> None:
    store.answers = True
    wait_until(lambda: store.connection.state is State.REACHABLE)


def test_calls_are_carried_out_while_the_store_answers(store: FakeStore) -> None:
    store.call("one")
    store.call("two")
    assert store.received == ["one", "two"]
    assert (store.connection.state, store.connection.lost) == (State.CONNECTED, None)
    assert not store.connection.was_lost


def test_a_call_that_fails_loses_the_store_and_raises_nothing(store: FakeStore) -> None:
    lose(store)
    assert store.connection.was_lost


def test_calls_ask_a_lost_store_nothing_though_it_answers_by_now(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 1e6)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 1e6)
    lose(store)
    store.answers = True
    store.call("kept by the caller")
    assert store.received == []
    assert store.connection.state is State.LOST


def test_a_lost_store_is_asked_until_it_answers_and_is_reachable_then(store: FakeStore) -> None:
    lose(store)
    wait_until(lambda: store.probes >= 3)
    assert store.connection.state is State.LOST
    bring_back(store)
    assert store.connection.lost == "no answer"  # until it is known what the store has
    assert store.received == []


def test_a_store_that_is_back_is_looked_through_then_sent_what_it_missed_then_called(store: FakeStore) -> None:
    lose(store)
    store.missed = ["missed 1", "missed 2"]
    bring_back(store)
    store.call("new")
    assert store.received == ["reconnect", "missed 1", "missed 2", "new"]
    assert (store.connection.state, store.connection.lost) == (State.CONNECTED, None)
    assert store.connection.was_lost
    store.call("newer")
    assert store.received[4:] == ["newer"]


def test_what_a_store_missed_is_sent_a_part_at_a_call(store: FakeStore) -> None:
    lose(store)
    store.missed, store.at_once = ["missed 1", "missed 2", "missed 3"], 2
    bring_back(store)
    store.call("new")
    assert store.received == ["reconnect", "missed 1", "missed 2", "new"]
    assert (store.connection.state, store.connection.lost) == (State.BEHIND, None)
    store.call("newer")
    assert store.received[4:] == ["missed 3", "newer"]
    assert store.connection.state is State.CONNECTED


def test_catching_up_without_a_limit_sends_all(store: FakeStore) -> None:
    lose(store)
    store.missed, store.at_once = ["missed 1", "missed 2", "missed 3"], 1
    bring_back(store)
    store.connection.attempt(store.connection.catch_up)
    assert store.missed == []
    assert store.connection.state is State.CONNECTED


@pytest.mark.parametrize("state", [State.REACHABLE, State.BEHIND, State.CONNECTED])
def test_a_failure_loses_the_store_in_every_state_and_it_is_asked_again(store: FakeStore, state: State) -> None:
    lose(store)
    bring_back(store)
    store.missed = ["missed 1"]
    if state is not State.REACHABLE:
        store.at_once = 0 if state is State.BEHIND else 100
        store.call("new")
    store.at_once = 100
    assert store.connection.state is state
    lose(store)
    bring_back(store)


def test_a_store_that_comes_and_goes_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 60.0)
    pauses: list[float] = []

    class Thread:
        def __init__(self, *, args: tuple[float], **_: object) -> None:
            pauses.extend(args)

        def start(self) -> None:
            pass

    monkeypatch.setattr(threading, "Thread", Thread)
    connection = FakeStore().connection
    for _ in range(7):
        connection.lose(ConnectionError())
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    later = time.monotonic() + 61  # it was well for longer than the longest pause
    monkeypatch.setattr(time, "monotonic", lambda: later)
    connection.lose(ConnectionError())
    assert pauses[-1] == 1.0


def test_closing_ends_the_asking(store: FakeStore) -> None:
    before = set(threading.enumerate())
    lose(store)
    (thread,) = set(threading.enumerate()) - before
    store.connection.close(retry=False)
    thread.join(30)
    assert not thread.is_alive()
    store.answers = True
    store.call("too late")
    assert (store.connection.state, store.received) == (State.LOST, [])


def test_closing_lets_the_last_call_try_a_lost_store_once_more(store: FakeStore) -> None:
    for answers, state in ((False, State.LOST), (True, State.CONNECTED)):
        if store.connection.state is State.CONNECTED:
            lose(store)
        store.missed = ["missed"]
        store.answers = answers
        store.connection.close(retry=True)
        assert store.connection.state is State.REACHABLE
        store.call("last")
        assert store.connection.state is state
    assert store.received == ["reconnect", "missed", "last"]


@pytest.mark.parametrize("retry", [True, False])
def test_closing_changes_nothing_about_a_store_that_answers(store: FakeStore, retry: bool) -> None:
    store.connection.close(retry=retry)
    store.call("last")
    assert (store.connection.state, store.received) == (State.CONNECTED, ["last"])
    lose(store)  # and no thread asks
    time.sleep(0.05)
    assert store.probes == 0
