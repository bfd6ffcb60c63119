"""How a small topic is followed, over a library of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar

import pytest
from gevent.monkey import get_original

from daemon.kafka import topic_follower as module
from daemon.kafka.topic_follower import TopicFollower
from pillows.kafka.options import KafkaConnection
from tests.support.waiting import wait_until

sleep_in_thread = get_original("time", "sleep")


class Message:
    """A message with an offset and nothing else."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset

    def error(self) -> None:
        return None


class Library:
    """Returns three messages, one by one, from the offset that it is assigned."""

    open: ClassVar[list[Library]] = []

    def __init__(self, _settings: object) -> None:
        self.open.append(self)
        self._next = 0

    def assign(self, places: Sequence[Any]) -> None:
        self._next = places[0].offset

    def consume(self, _count: int, _seconds: float) -> Sequence[Message]:
        if self._next == 3:
            sleep_in_thread(0.01)
            return []
        self._next += 1
        return [Message(self._next - 1)]

    def close(self) -> None:
        self.open.remove(self)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Library]]:
    monkeypatch.setattr(module, "Consumer", Library)
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.01)
    yield Library
    assert not Library.open


def test_a_message_that_could_not_be_taken_comes_again_and_the_next_ones_follow(
    library: type[Library],
) -> None:
    taken: list[int] = []

    def take(message: Any) -> None:
        taken.append(message.offset())
        if len(taken) == 2:
            raise OSError(28, "No space left on device")

    with closing(TopicFollower(KafkaConnection(servers=("a:1",)), "control", 0, take)):
        wait_until(lambda: len(taken) == 4)
        assert taken == [0, 1, 1, 2]
        assert len(library.open) == 1
