"""How far a group has come in a topic while transactions on it are open, on a real broker."""

from __future__ import annotations

from contextlib import closing

import confluent_kafka
import gevent
import pytest

from checkpoints import TailKey
from daemon.kafka.operators.group_offsets import read_group_offsets
from pillows.change_topics.names import ServiceTopics
from pillows.kafka import topics
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic import Topic
from tests.support.kafka_reader import is_led
from tests.support.waiting import wait_until

KEY = TailKey("cases", "couch/cases")


@pytest.mark.parametrize("is_between", [False, True], ids=["before others", "after others"])
def test_the_end_is_not_that_of_an_open_transaction(kafka: str, kafka_prefix: str, is_between: bool) -> None:
    """Otherwise records of or behind the transaction would count as passed before anybody has read them."""
    options, names = KafkaConnection(servers=(kafka,)), ServiceTopics(kafka_prefix.strip("-"))
    topic = names.changes(KEY.source)
    topics.create(options, [Topic(name=topic, partitions=1)])
    wait_until(lambda: is_led(options, topic, 1))
    reader = confluent_kafka.Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    reader.init_transactions(30)
    reader.begin_transaction()
    if not is_between:
        reader.produce(topic, b"change", b"a", partition=0)
        reader.flush(30)
    with closing(Producer(options)) as producer:
        request = Message(id="a", key=b"request", topic=topic, value=b"{}", headers=[], partition=0)
        assert not producer.send([request]).failures
    if is_between:
        reader.produce(topic, b"change", b"a", partition=0)
        reader.flush(30)
    reading = gevent.spawn(read_group_offsets, options, names, KEY)
    gevent.sleep(1)
    assert not reading.ready()
    reader.commit_transaction(30)
    assert reading.get(timeout=30).ends == {0: 3}, "the change, the request and the end of the transaction"
