"""How fast a sweep asks the server: at most five requests per second, and two at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from gevent.event import Event

from pillows.databases.names import DatabaseNames
from pillows.databases.turn_queue import TurnQueue
from pillows.databases.watch import ServerWatch
from pillows.errors import RetryableError
from pillows.feed.options import SourceOptions
from tests.support.clock import FakeClock

NAMES = [f"user-{number:05}" for number in range(3000)]


class SlowServer:
    """Describes databases, and takes its time.

    Args:
        seconds: for each request.
        failing_at: the number of the request that fails, from 1.
        error: what it fails with.
    """

    def __init__(self, seconds: float, *, failing_at: int = 0, error: Exception | None = None) -> None:
        self.clock = FakeClock()
        self.began_at: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self._seconds = seconds
        self._failing_at = failing_at
        self._error = error

    def json(self, _method: str, path: str, type_: Any, **_: Any) -> Any:
        self.began_at.append(self.clock.monotonic())
        number = len(self.began_at)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            self.clock.wait(Event(), self._seconds)
        finally:
            self.in_flight -= 1
        if number == self._failing_at and self._error is not None:
            raise self._error
        query = {name: json.loads(value) for name, (value,) in parse_qs(urlsplit(path).query).items()}
        found = [name for name in NAMES if query["startkey"] <= name <= query["endkey"]][: query["limit"]]
        return msgspec.convert([{"key": name, "info": {"update_seq": "1-x"}} for name in found], type_)


def watch(server: SlowServer, known: Sequence[str]) -> tuple[ServerWatch, TurnQueue]:
    queue = TurnQueue()
    for name in known:
        queue.add(name)
    source = SourceOptions(connection="couch", databases=["user-*"])
    names = DatabaseNames(source.databases)
    made = ServerWatch(
        server,  # type: ignore[arg-type]
        source,
        names,
        queue,
        on_mark=lambda: None,
        warn=lambda *_: None,
    )
    return made, queue


def test_a_slow_server_is_asked_by_two_requests_at_once() -> None:
    server = SlowServer(1.0)
    made, queue = watch(server, NAMES)
    made.sweep()
    assert set(queue) == set(NAMES)
    assert server.most_in_flight == 2
    assert len(server.began_at) == 31  # the last page of a part may be nearly empty
    assert server.began_at[-1] - server.began_at[0] == pytest.approx(15.0, abs=1.5)


def test_a_fast_server_is_asked_five_times_a_second() -> None:
    server = SlowServer(0.01)
    made, _ = watch(server, NAMES)
    made.sweep()
    for first, sixth in zip(server.began_at, server.began_at[5:], strict=False):
        assert sixth - first >= 0.999


def test_unknown_databases_are_found_page_by_page() -> None:
    server = SlowServer(1.0)
    made, queue = watch(server, [])
    made.sweep()
    assert set(queue) == set(NAMES)
    assert server.most_in_flight == 1


@pytest.mark.parametrize("are_read", [True, False])
def test_a_first_load_is_asked_for_as_fast_as_it_is_read(are_read: bool) -> None:
    server = SlowServer(0.01)
    made, queue = watch(server, [])

    def read() -> None:
        while are_read and queue.take(0.0) is not None:
            pass

    made._on_mark = read
    made.sweep()
    assert set(queue) == set(NAMES)
    seconds = server.began_at[-1] - server.began_at[0]
    assert seconds == pytest.approx(0.3 if are_read else (len(server.began_at) - 2) * 0.2, abs=0.25)


@pytest.mark.parametrize("number", [1, 2, 9])
def test_a_request_that_fails_ends_both(number: int) -> None:
    server = SlowServer(1.0, failing_at=number, error=RetryableError("503"))
    made, queue = watch(server, NAMES)
    with pytest.raises(RetryableError, match="503"):
        made.sweep()
    assert server.in_flight == 0
    asked = len(server.began_at)
    server.clock.wait(Event(), 10.0)
    assert len(server.began_at) == asked
    assert queue.state_counts().keys() <= {"parked", "queued"}
