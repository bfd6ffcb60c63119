"""Pillows that are shared over three brokers, of which some are lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import gevent
import pytest
from confluent_kafka.admin import AdminClient

from pillows.change_topics.names import ServiceTopics
from tests.acceptance.shared_service import Service, Writer, equal, make_for, pillows_of
from tests.acceptance.world import World, live, statuses
from tests.servers.kafka import Kafka, make_brokers
from tests.servers.process import Server
from tests.support.waiting import wait_until


@pytest.fixture
def brokers() -> Iterator[list[Kafka]]:
    """Three brokers of one cluster."""
    with ExitStack() as stack:
        made = [stack.push(each) for each in make_brokers()]
        start(made)
        yield made


def start(brokers: list[Kafka]) -> None:
    """Starts brokers at the same time."""
    for greenlet in gevent.joinall([gevent.spawn(Server.start, each) for each in brokers], raise_error=True):
        greenlet.get()


def has_all_copies(servers: str, topic: str) -> bool:
    """Whether every broker has all of a topic again."""
    partitions = AdminClient({"bootstrap.servers": servers}).list_topics(topic, timeout=10).topics[topic]
    return all(len(each.isrs) == 3 for each in partitions.partitions.values())


@pytest.mark.proof
@pytest.mark.timeout(1200)
def test_a_broker_that_is_killed_stops_nothing_and_loses_nothing(
    world: World, brokers: list[Kafka], kafka_prefix: str
) -> None:
    """Each of three is killed in turn, then two at once: that stops the service until one is back."""
    service, servers = kafka_prefix.strip("-"), [each.where for each in brokers]
    crowd = Service(make_for(world, servers, service), pillows_of(world))
    for daemon in crowd.daemons[:2]:
        crowd.start(daemon)
    crowd.until_shared()
    assert [each for daemon in crowd.running for each in daemon.events("kafka.copies")] == []
    topic = ServiceTopics(service).changes(f"couch/{world.couch.name}")
    writer = Writer(world, seed=3)
    writer.write(100)
    wait_until(lambda: equal(world))
    for broker in brokers:
        broker.kill()
        for _ in range(10):
            writer.write(20)
        wait_until(lambda: equal(world), seconds=90)
        print("one broker of three is away, and the targets are equal")
        start([broker])
        wait_until(lambda: has_all_copies(",".join(servers), topic), seconds=60)

    for broker in brokers[:2]:
        broker.kill()
    writer.write(100)
    for daemon in crowd.running:
        daemon.wait_for(lambda: statuses(daemon)["cases"]["state"] == "backing-off")  # noqa: B023 - called at once
    start(brokers[:2])
    writer.write(100)
    for daemon in crowd.running:
        daemon.wait_for(lambda: live(daemon), seconds=120)  # noqa: B023 - called at once
    wait_until(lambda: equal(world), seconds=90)
    crowd.stop()
