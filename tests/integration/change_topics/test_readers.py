"""Daemons that divide the databases of a service, on a real broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from gevent.event import Event

from checkpoints import TailKey
from daemon.kafka.readers import Readers
from pillows.change_topics.names import ServiceTopics
from pillows.clock import SystemClock
from pillows.errors import FencedError
from pillows.kafka import topics
from pillows.kafka.consumer import Consumer
from pillows.kafka.group import Group, Listener
from pillows.kafka.options import KafkaConnection
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus
from tests.support.waiting import wait_until

SOURCES = [f"couch/db{number}" for number in range(24)]


class Idle:
    """A reader that reads nothing, and tells who runs it."""

    ticked_at = float("inf")
    state = State.LIVE

    def __init__(self, key: TailKey, name: str, owners: dict[str, list[str]]) -> None:
        self._key, self._name, self._owners = key, name, owners

    def run(self, stop: Event) -> None:
        self._owners.setdefault(self._key.source, []).append(self._name)
        stop.wait(600)
        self._owners[self._key.source].remove(self._name)

    def status(self) -> TailStatus:
        return TailStatus(pillow=self._key.pillow, source=self._key.source, state=self.state)


@dataclass
class Daemon:
    """One that reads a part of the databases."""

    readers: Readers[str]
    stop: Event
    greenlet: Any

    def end(self) -> None:
        self.stop.set()
        self.greenlet.join(30)


class Daemons:
    """Daemons of one service.

    Attributes:
        owners: database -> who reads it.
        sources: those that are configured.
        told: database -> the daemon that has told the status of its reader.
    """

    def __init__(self, server: str, service: str) -> None:
        self._options = KafkaConnection(servers=(server,))
        self._topics = ServiceTopics(service)
        self.owners: dict[str, list[str]] = {}
        self.sources = list(SOURCES)
        self.told: dict[str, str] = {}
        self.started: list[Daemon] = []
        topics.create(self._options, self._topics.describe())

    def start(self, name: str) -> Daemon:
        def find() -> Mapping[TailKey, str]:
            return {TailKey("reader", source): source for source in self.sources}

        def make(listener: Listener) -> Consumer:
            group = Group(id=self._topics.group_of_readers, instance_id=name, session_seconds=6)
            return Consumer(self._options, group, self._topics.units, listener)

        readers = Readers[str](
            find,
            lambda key, _: lambda: Idle(key, name, self.owners),
            make,
            lambda statuses: self.told.update({each.source: name for each in statuses}),
            clock=SystemClock(),
            observer=Observer(),
        )
        stop = Event()
        self.started.append(Daemon(readers, stop, gevent.spawn(readers.run, stop)))
        return self.started[-1]

    def each_has_one(self, *names: str) -> bool:
        """Whether each database is read by one of these, and each of these reads some."""
        found = [self.owners.get(source, []) for source in self.sources]
        return all(len(each) == 1 for each in found) and {each[0] for each in found} == set(names)


@pytest.fixture
def daemons(kafka: str, kafka_prefix: str) -> Iterator[Daemons]:
    made = Daemons(kafka, kafka_prefix.strip("-"))
    yield made
    gevent.joinall([gevent.spawn(each.end) for each in made.started])


def test_daemons_divide_the_databases_and_take_over_from_each_other(daemons: Daemons) -> None:
    first = daemons.start("a")
    wait_until(lambda: daemons.each_has_one("a"))
    daemons.sources = [*SOURCES[1:], "couch/new"]
    wait_until(lambda: daemons.each_has_one("a"))
    assert daemons.owners[SOURCES[0]] == [], "a database that is configured no more is not read"
    wait_until(lambda: daemons.told.keys() >= set(daemons.sources))
    daemons.start("b")
    wait_until(lambda: daemons.each_has_one("a", "b"))
    assert len(first.readers.statuses()) < len(daemons.sources)
    first.end()
    assert all("a" not in names for names in daemons.owners.values())
    wait_until(lambda: daemons.each_has_one("b"), seconds=30)


def test_a_daemon_with_the_same_name_replaces_the_first(daemons: Daemons) -> None:
    first = daemons.start("a")
    wait_until(lambda: daemons.each_has_one("a"))
    daemons.start("a")
    first.greenlet.join(60)
    assert isinstance(first.readers.error, FencedError)
    wait_until(lambda: daemons.each_has_one("a"))
