"""Who writes the dead letters of a partition."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from checkpoints import StoreWriteError
from daemon.kafka import letters as module
from daemon.kafka.letters import Letters
from pillows.change_topics.names import ServiceTopics
from pillows.errors import AccessError, PillowError, RetryableError
from pillows.kafka.delivery import Delivery
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.topic_log import TopicLog

KEY = ("cases@couch/cases#3", "es", "bad")


class Producers:
    """Makes producers, and keeps what they were asked to do."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.closed: list[str] = []
        self.sent: list[Message] = []
        self.error: PillowError | None = None

    def make(self, _options: object, transactional_id: str) -> Producer:
        self.made.append(transactional_id)
        return Producer(self, transactional_id)


class Producer:
    """Sends nothing."""

    def __init__(self, producers: Producers, transactional_id: str) -> None:
        self._producers = producers
        self._transactional_id = transactional_id

    def send(self, messages: Sequence[Message]) -> Delivery:
        if self._producers.error is not None:
            raise self._producers.error
        self._producers.sent += messages
        return Delivery()

    def close(self) -> None:
        self._producers.closed.append(self._transactional_id)


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> Producers:
    producers = Producers()
    monkeypatch.setattr(module, "Producer", producers.make)
    log = TopicLog(records={}, changed=frozenset(), next_offset=0)
    monkeypatch.setattr(module, "read_log", lambda *_: log)
    return producers


@pytest.fixture
def letters() -> Letters:
    return Letters(KafkaConnection(servers=("a:1",)), ServiceTopics("reports"))


def test_only_the_owner_of_a_partition_opens_a_producer(producers: Producers, letters: Letters) -> None:
    """To open one takes the transactions over from the owner's."""
    with pytest.raises(StoreWriteError, match="another daemon"):
        letters.write({KEY: None})
    assert not producers.made

    assert letters.take("cases", 3, lambda: None) == {}
    letters.write({KEY: b"{}"})
    assert [message.value for message in producers.sent] == [b"{}"]

    letters.release("cases", 3)
    assert producers.closed == producers.made
    with pytest.raises(StoreWriteError, match="another daemon"):
        letters.write({KEY: None})
    assert len(producers.made) == 1


def test_nothing_is_written_while_the_partition_may_have_another_owner(
    producers: Producers, letters: Letters
) -> None:
    def check_ownership() -> None:
        raise RetryableError("The group may have given partition 3 away.")

    letters.take("cases", 3, check_ownership)
    with pytest.raises(StoreWriteError, match="may have given partition 3 away"):
        letters.write({KEY: b"{}"})
    assert not producers.made


def test_whatever_the_brokers_refuse_the_letters_wait(producers: Producers, letters: Letters) -> None:
    letters.take("cases", 3, lambda: None)
    producers.error = AccessError("Kafka does not let us in.", remedy="check the permissions")
    with pytest.raises(StoreWriteError, match="check the permissions"):
        letters.write({KEY: b"{}"})
