"""When a member of a group polls, over a library of the test's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from gevent.monkey import get_original

from pillows.kafka import consumer_thread as module
from pillows.kafka.consumer_thread import ConsumerThread
from tests.support.waiting import wait_until

sleep_in_thread = get_original("time", "sleep")

SESSION_SECONDS = 0.2


class Library:
    """A member without partitions, which counts its polls."""

    polls = 0

    def __init__(self, _settings: object) -> None:
        """Nothing is connected."""

    def subscribe(self, *_: object, **__: object) -> None:
        """Nothing is assigned."""

    def poll(self, _seconds: float) -> None:
        Library.polls += 1
        sleep_in_thread(0.01)

    def close(self) -> None:
        """Nothing is left."""


class Hub:
    """Is woken by the thread, and runs while it is not blocked."""

    def __init__(self) -> None:
        self.is_blocked = False
        self.thread = ConsumerThread(
            {},
            servers=["a:1"],
            topic="cases",
            max_queued_bytes=1000,
            session_seconds=SESSION_SECONDS,
            wake=self.wake,
        )

    def wake(self) -> None:
        if not self.is_blocked:
            self.thread.hub_ran_at = time.monotonic()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    library: Any = Library
    monkeypatch.setattr(module, "LibraryConsumer", library)
    monkeypatch.setattr(module, "_HUB_SECONDS", 0.01)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    hub = Hub()
    hub.thread.start()
    yield hub
    hub.thread.close()
    wait_until(lambda: hub.thread.has_ended)


def test_a_member_whose_hub_is_blocked_polls_no_more_until_that_runs_again(hub: Hub) -> None:
    """Else it would keep its partitions for ever, and nobody would read them."""
    thread = hub.thread
    wait_until(lambda: Library.polls > 3)
    hub.is_blocked = True
    wait_until(lambda: time.monotonic() - thread.polled_at > SESSION_SECONDS)
    polls = Library.polls
    hub.is_blocked = False
    wait_until(lambda: Library.polls > polls)
