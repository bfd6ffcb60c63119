"""What daemons of a service tell each other about their pillows, over a real broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import msgspec
import pytest

from checkpoints import TailKey
from daemon.kafka.service_status import ServiceStatus
from pillows.change_topics.partition_keys import partition_key
from pillows.clock import SystemClock
from pillows.kafka import topics
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic import Topic
from pillows.runtime.status import State, TailStatus
from tests.support.kafka_reader import is_led
from tests.support.waiting import wait_until

STATUS = TailStatus(pillow="cases", source="couch/cases", state=State.LIVE, pending=3)


@pytest.fixture
def options(kafka: str) -> KafkaConnection:
    return KafkaConnection(servers=(kafka,))


@pytest.fixture
def topic(options: KafkaConnection, kafka_prefix: str) -> str:
    name = f"{kafka_prefix}status"
    topics.create(options, [Topic(name=name, partitions=1)])
    wait_until(lambda: is_led(options, name, 1))
    return name


@pytest.fixture
def producer(options: KafkaConnection) -> Iterator[Producer]:
    with closing(Producer(options)) as producer:
        yield producer


def tell_of_another_version(producer: Producer, topic: str, key: str, value: Mapping[str, Any]) -> None:
    encoded = msgspec.json.encode(value)
    message = Message(id=key, key=key.encode(), topic=topic, value=encoded, headers=[], partition=0)
    assert not producer.send([message]).failures


@pytest.mark.parametrize("is_open", [True, False], ids=["while it follows", "before it opens"])
def test_a_daemon_of_another_version_is_understood_and_silences_no_other(
    options: KafkaConnection, topic: str, producer: Producer, is_open: bool
) -> None:
    clock = SystemClock()
    known = {"pillow": "newer", "source": "couch/cases", "state": "live"}
    newer = {"status": {**known, "field_of_tomorrow": 1}, "other": 2}
    unknown_state = {"status": {**known, "pillow": "odd", "state": "dreaming"}}

    def tell() -> None:
        tell_of_another_version(producer, topic, "newer", newer)
        tell_of_another_version(producer, topic, "odd", unknown_state)
        status.tell([STATUS])

    with closing(ServiceStatus(options, topic, producer, clock)) as status:
        if not is_open:
            tell()
        status.open()
        assert status.get(TailKey("cases", "couch/cases")) is None, "nobody knows how old it is"
        tell()
        wait_until(lambda: status.get(TailKey("cases", "couch/cases")) == STATUS)
        found = status.get(TailKey("newer", "couch/cases"))
        assert found is not None
        assert found.state is State.LIVE
        assert status.get(TailKey("odd", "couch/cases")) is None


def test_each_daemon_knows_whether_another_one_runs_a_pillow(
    options: KafkaConnection, topic: str, producer: Producer
) -> None:
    key, clock = TailKey("cases", "couch/cases"), SystemClock()
    part = partition_key(key, 2)
    with (
        closing(ServiceStatus(options, topic, producer, clock, instance_id="a")) as first,
        closing(ServiceStatus(options, topic, producer, clock, instance_id="b")) as second,
    ):
        first.open()
        second.open()
        first.tell([TailStatus(pillow=part.pillow, source=part.source, state=State.LIVE)])
        heard_at = second.listen(key)
        assert heard_at is not None
        assert clock.monotonic() - heard_at < 60
        assert second.listen(TailKey(key.pillow, "couch/other")) == heard_at, "its source may be what differs"
        assert second.listen(TailKey("others", "couch/cases")) is None
        wait_until(lambda: first.find(key))
        assert first.listen(key) is None
