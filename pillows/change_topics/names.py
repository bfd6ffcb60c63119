"""The topics of a service, the groups that read them, and the policies they are created with."""

from __future__ import annotations

import re
from zlib import crc32

from msgspec import Struct

from pillows.kafka.topic import Topic

#: Number of units that the databases of a service are divided into; one daemon reads each.
UNITS = 16
#: Partitions of a topic of dead letters. It does not depend on the topic of changes.
LETTER_PARTITIONS = 64

#: Characters not allowed in a topic's name. The dot is free for us: no database name contains one (CouchDB
#: docs, "/{db}").
_NOT_TAKEN = re.compile(rb"[^A-Za-z0-9_-]")

#: Topics that are read completely at each start: small segments let the brokers compact them soon.
_SMALL = {
    "cleanup.policy": "compact",
    "segment.bytes": str(4 * 2**20),
    "segment.ms": str(3600 * 1000),
    "min.cleanable.dirty.ratio": "0.1",
}
#: Keep records for an hour, so that a pillow up to an hour behind still sees each one and reports progress as
#: usual.
_CHANGES = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(3600 * 1000)}


class ServiceTopics(Struct, frozen=True):
    """The names of a service's topics, groups and transactions.

    Attributes:
        service: the service's name.
    """

    service: str

    @property
    def units(self) -> str:
        """A topic without messages: the members of a group on it divide the databases among them."""
        return self._name("units")

    @property
    def positions(self) -> str:
        """The topic with the position up to which each database was read."""
        return self._name("positions")

    @property
    def status(self) -> str:
        """The topic with the status of each tail."""
        return self._name("status")

    @property
    def control(self) -> str:
        """The topic with the pauses and resets of operators."""
        return self._name("control")

    def changes(self, source: str) -> str:
        """Return the topic of a database's changes.

        Args:
            source: `connection/database`.
        """
        connection, _, database = source.partition("/")
        return self._name(f"changes.{connection}.{_encode(database)}")

    def letters(self, pillow: str) -> str:
        """Return the topic of a pillow's dead letters."""
        return self._name(f"letters.{pillow}")

    @property
    def group_of_readers(self) -> str:
        """The name of the consumer group that reads the databases."""
        return self._name("readers")

    def group(self, pillow: str) -> str:
        """Return the name of the consumer group that runs a pillow; a pillow cannot be called `readers`."""
        return self._name(pillow)

    def reader_id(self, source: str) -> str:
        """Return the transactional id of a database's reader, the same in every daemon."""
        return self._name(f"reader.{source}")

    def requests_id(self, pillow: str, member: str) -> str:
        """Return the transactional id of a daemon's requests for a pillow."""
        return self._name(f"requests.{pillow}.{member}")

    def describe(self) -> list[Topic]:
        """Return the topics of a service, except those of changes and dead letters."""
        return [
            Topic(name=self.units, partitions=UNITS),
            Topic(name=self.positions, partitions=UNITS, config=_SMALL),
            Topic(name=self.status, partitions=1, config=_SMALL),
            Topic(name=self.control, partitions=1, config=_SMALL),
        ]

    def describe_changes(self, source: str, partitions: int) -> Topic:
        """Return the topic of a database's changes."""
        return Topic(name=self.changes(source), partitions=partitions, config=_CHANGES)

    def describe_letters(self, pillow: str) -> Topic:
        """Return the topic of a pillow's dead letters."""
        return Topic(name=self.letters(pillow), partitions=LETTER_PARTITIONS, config=_SMALL)

    def _name(self, rest: str) -> str:
        return f"pillowd.{self.service}.{rest}"


def find_unit(source: str) -> int:
    """Return the unit that a database belongs to, the same on every machine and in every version."""
    return crc32(source.encode()) % UNITS


def _encode(database: str) -> str:
    return _NOT_TAKEN.sub(lambda found: b".%02x" % found[0][0], database.encode()).decode()
