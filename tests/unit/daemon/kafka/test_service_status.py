"""How long a status counts that another daemon has told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from checkpoints import TailKey
from daemon.kafka.service_status import STALE_SECONDS, ServiceStatus
from pillows.kafka.options import KafkaConnection
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock

KEY = TailKey("cases", "couch/cases")
STATUS = TailStatus(pillow="cases", source="couch/cases#3", state=State.LIVE)


class Message:
    """A message of the topic."""

    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value


def told(offset: int, **others: Any) -> Any:
    return Message(offset, msgspec.json.encode({"status": STATUS, "by": "another", **others}))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(auto=False)


@pytest.fixture
def statuses(clock: FakeClock) -> ServiceStatus:
    unused: Any = None
    return ServiceStatus(KafkaConnection(servers=("a:1",)), "status", unused, clock, instance_id="this")


def find(statuses: ServiceStatus) -> list[TailStatus | None]:
    return [statuses.find(KEY).get(3), statuses.get(TailKey("cases", "couch/cases#3"))]


@pytest.mark.parametrize("ahead_seconds", [-3600.0, 0.0, 3600.0])
def test_a_status_counts_from_when_it_was_heard_whatever_the_clock_of_its_daemon_says(
    statuses: ServiceStatus, clock: FakeClock, ahead_seconds: float
) -> None:
    statuses._take(told(0, at=clock.wall() + ahead_seconds))
    clock.advance(STALE_SECONDS)
    assert find(statuses) == [STATUS, STATUS]
    clock.advance(1)
    assert find(statuses) == [None, None]


def test_what_is_read_twice_was_heard_once(statuses: ServiceStatus, clock: FakeClock) -> None:
    statuses._take(told(0))
    clock.advance(STALE_SECONDS + 1)
    statuses._take(told(0))
    assert find(statuses) == [None, None]
    statuses._take(told(1))
    assert find(statuses) == [STATUS, STATUS]


def test_an_unreadable_status_counts_as_not_told(statuses: ServiceStatus) -> None:
    unreadable: list[Any] = [Message(0, b"\xff"), Message(1, b'{"status": "\xff"}'), Message(2, b"[" * 5000)]
    for each in unreadable:
        statuses._take(each)
    assert find(statuses) == [None, None]
