"""Publishes a database's changes as the reader of a service does, but when a test says so."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer

from checkpoints import Seq
from pillows.change_topics.names import ServiceTopics
from pillows.change_topics.positions import Position, make_message
from pillows.change_topics.records import IDENTITY, SOURCE, encode_change
from pillows.models import Change, revision_number
from tests.servers.couch_client import CouchDatabase


class ChangePublisher:
    """Publishes what has changed since the last time.

    Args:
        server: the broker.
        service: the service's name.
        couch: the database.
        source: `connection/database`.
    """

    def __init__(self, server: str, service: str, couch: CouchDatabase, source: str) -> None:
        self._couch = couch
        self._source = source
        self._topics = ServiceTopics(service)
        self._topic = self._topics.changes(source)
        self._since: Any = 0
        settings = {"bootstrap.servers": server, "partitioner": "murmur2_random", "linger.ms": 0}
        self._producer = Producer(settings)

    def publish(self) -> int:
        """Publishes everything that has changed; returns how many records."""
        created_at = str(self._couch.info()["instance_start_time"])
        headers = [(SOURCE, self._source), (IDENTITY, created_at)]
        found = self._couch.changes(since=self._since, style="all_docs")
        for row in found["results"]:
            revs = tuple(each["rev"] for each in row["changes"])
            change = Change(
                id=row["id"],
                revs=revs,
                leaf_version=sum(map(revision_number, revs)),
                deleted=row.get("deleted", False),
            )
            self._producer.produce(
                self._topic, encode_change(change), row["id"].encode(), headers=list(headers)
            )
        self._since = found["last_seq"]
        position = make_message(self._topics, self._source, Position(seq=Seq.of(self._since)))
        self._producer.produce(position.topic, position.value, position.key, partition=position.partition)
        assert self._producer.flush(60) == 0
        return len(found["results"])
