"""The answers of a real cluster about its copies."""

from __future__ import annotations

from contextlib import closing

from pillows.kafka.durability import find_weakness
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic import Topic
from pillows.kafka.topics import create, describe, find_setting


def test_a_broker_alone_keeps_one_copy(kafka: str, kafka_prefix: str) -> None:
    options, name = KafkaConnection(servers=(kafka,)), f"{kafka_prefix}copies"
    create(options, [Topic(name=name, partitions=1, config={"min.insync.replicas": "2"})])
    with closing(Producer(options)) as producer:
        cluster = describe(producer)
    assert cluster.copies[name] == 1
    assert find_setting(options, name, "min.insync.replicas") == "2"
    assert find_setting(options, name, "no.such.setting") is None
    assert "each record has one copy" in find_weakness(options, cluster, name)
