"""The states of a connection to a store with outages, without a real store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ablations.tracking import outage
from ablations.tracking.outage import Connection, State


class FakeStore:
    """A store that fails unless `answers` is set, with a connection that queues updates in `missed`."""

    def __init__(self) -> None:
        self.answers = True
        self.missed: list[str] = []
        self.received: list[str] = []
        self.at_once = 100  # number of missed updates sent per call
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
    fake = FakeStore()
    yield fake
    fake.connection.close(retry=False)


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


def test_calls_are_executed_while_the_store_responds(store: FakeStore) -> None:
    store.call("one")
    store.call("two")
    assert store.received == ["one", "two"]
    assert (store.connection.state, store.connection.lost) == (State.CONNECTED, None)
    assert not store.connection.was_lost


def test_a_failed_call_sets_the_state_to_lost_and_does_not_raise(store: FakeStore) -> None:
    lose(store)
    assert store.connection.was_lost


def test_calls_do_not_contact_a_lost_store_even_if_it_responds_again(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_PAUSE", 1e6)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 1e6)
    lose(store)
    store.answers = True
    store.call("kept by the caller")
    assert store.received == []
    assert store.connection.state is State.LOST


def test_a_lost_store_is_probed_until_it_responds_and_is_then_reachable(store: FakeStore) -> None:
    lose(store)
    wait_until(lambda: store.probes >= 3)
    assert store.connection.state is State.LOST
    bring_back(store)
    assert store.connection.lost == "no answer"  # until its content is read
    assert store.received == []


def test_a_reachable_store_is_read_then_sent_missed_updates_then_called(store: FakeStore) -> None:
    lose(store)
    store.missed = ["missed 1", "missed 2"]
    bring_back(store)
    store.call("new")
    assert store.received == ["reconnect", "missed 1", "missed 2", "new"]
    assert (store.connection.state, store.connection.lost) == (State.CONNECTED, None)
    assert store.connection.was_lost
    store.call("newer")
    assert store.received[4:] == ["newer"]


def test_missed_updates_are_sent_in_parts_by_several_calls(store: FakeStore) -> None:
    lose(store)
    store.missed, store.at_once = ["missed 1", "missed 2", "missed 3"], 2
    bring_back(store)
    store.call("new")
    assert store.received == ["reconnect", "missed 1", "missed 2", "new"]
    assert (store.connection.state, store.connection.lost) == (State.BEHIND, None)
    store.call("newer")
    assert store.received[4:] == ["missed 3", "newer"]
    assert store.connection.state is State.CONNECTED


def test_catching_up_without_a_limit_sends_everything(store: FakeStore) -> None:
    lose(store)
    store.missed, store.at_once = ["missed 1", "missed 2", "missed 3"], 1
    bring_back(store)
    store.connection.attempt(store.connection.catch_up)
    assert store.missed == []
    assert store.connection.state is State.CONNECTED


@pytest.mark.parametrize("state", [State.REACHABLE, State.BEHIND, State.CONNECTED])
def test_a_failure_in_any_state_leads_to_lost_and_restarts_probing(store: FakeStore, state: State) -> None:
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


def test_an_unstable_store_is_probed_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
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
    later = time.monotonic() + 61  # connected for longer than the longest pause
    monkeypatch.setattr(time, "monotonic", lambda: later)
    connection.lose(ConnectionError())
    assert pauses[-1] == 1.0


def test_closing_ends_the_probing(store: FakeStore) -> None:
    before = set(threading.enumerate())
    lose(store)
    (thread,) = set(threading.enumerate()) - before
    store.connection.close(retry=False)
    thread.join(30)
    assert not thread.is_alive()
    store.answers = True
    store.call("too late")
    assert (store.connection.state, store.received) == (State.LOST, [])


def test_after_closing_the_last_call_tries_a_lost_store_once_more(store: FakeStore) -> None:
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
def test_closing_does_not_change_a_connected_state(store: FakeStore, retry: bool) -> None:
    store.connection.close(retry=retry)
    store.call("last")
    assert (store.connection.state, store.received) == (State.CONNECTED, ["last"])
    lose(store)  # without a probing thread
    time.sleep(0.05)
    assert store.probes == 0
