"""The topic `control`: the requests of operators for a service's pillows, and the agreements of its daemons.

Every daemon of the service follows the topic: a pause or a reset applies to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import gevent
import msgspec
import structlog
from confluent_kafka import Message as LibraryMessage
from gevent.event import Event

from checkpoints import StoreWriteError
from checkpoints.replica import Key
from daemon.kafka.topic_follower import TopicFollower
from pillows.errors import PillowError
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic_log import read_log

#: The kinds of records; a key is a kind and names.
_PAUSE, _RESETS, _OFFSET, _CONFIG = "pause", "resets", "offset", "config"

#: Wait after a change that could not be applied.
_RETRY_SECONDS = 1.0

_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(
    Annotated[tuple[str | int, ...], msgspec.Meta(min_length=2)]  # a kind and one name or more
).decode
_decode_value = msgspec.msgpack.Decoder().decode

_log = structlog.get_logger("pillowd.kafka")


class ServiceControl:
    """Reads, follows and writes the topic `control`.

    Args:
        options: the cluster.
        topic: its name.
        producer: sends the messages. Its owner closes it.
    """

    def __init__(self, options: KafkaConnection, topic: str, producer: Producer) -> None:
        self._options = options
        self._topic = topic
        self._producer = producer
        self._records: dict[tuple[str | int, ...], tuple[int, Any]] = {}  # with the offset
        self._next_offset: int | None = None
        self._follower: TopicFollower | None = None
        self._changed = Event()
        self._applier: gevent.Greenlet[..., None] | None = None

    def open(self) -> None:
        """Read the whole topic, and follow it from then on.

        Raises:
            PillowError: the topic can't be read.
        """
        self.refresh()
        self._follower = TopicFollower(self._options, self._topic, self._next_offset or 0, self._take)

    def refresh(self) -> None:
        """Read all messages written so far.

        Raises:
            PillowError: the topic can't be read.
        """
        log = read_log(self._options, self._topic, 0, self._next_offset)
        for message in log.records.values():
            self._take(message)
        self._next_offset = log.next_offset

    def watch(self, on_change: Callable[[], None]) -> None:
        """Call `on_change` in a separate greenlet after changes; repeat it until it raises no error."""
        self._applier = gevent.spawn(self._apply, on_change)

    def close(self) -> None:
        """Stop following the topic."""
        if self._applier is not None:
            self._applier.kill()
            self._applier = None
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    # --- pauses

    @property
    def has_pauses(self) -> bool:
        """Whether a pillow was ever paused."""
        return any(kind == _PAUSE for kind, *_ in self._records)

    @property
    def paused(self) -> frozenset[str]:
        """The keys of the paused pillows."""
        found = [(name, value) for (kind, name, *_), (_, value) in self._records.items() if kind == _PAUSE]
        return frozenset(str(name) for name, value in found if value)

    def set_paused(self, paused: Mapping[str, bool]) -> None:
        """Pause pillows by their keys, or resume them.

        Raises:
            StoreWriteError: it may not have been written.
        """
        self._write({(_PAUSE, key): value for key, value in paused.items()})

    # --- resets

    def count_resets(self, pillow: str) -> int:
        """Return how many resets of a pillow operators have requested."""
        return int(self._get(_RESETS, pillow) or 0)

    def reset(self, pillow: str) -> None:
        """Have every partition of a pillow read from its beginning, under a new epoch.

        Raises:
            StoreWriteError: it may not have been written.
        """
        self._write({(_RESETS, pillow): self.count_resets(pillow) + 1})

    # --- offsets

    def find_noted_resets(self, pillow: str, number: int) -> int | None:
        """Return how many resets a partition had taken when its offset was noted; None if none was noted."""
        found = self._get(_OFFSET, pillow, number)
        return None if found is None else int(found)

    def note_offset(self, pillow: str, number: int, resets: int) -> None:
        """Note that a partition has an offset. If that offset is lost, the partition does not count as new.

        Raises:
            StoreWriteError: it may not have been written.
        """
        if self.find_noted_resets(pillow, number) != resets:
            self._write({(_OFFSET, pillow, number): resets})

    # --- configurations

    def find_configuration(self, pillow: str) -> Mapping[str, str] | None:
        """Return the digests of the configuration that a pillow runs with; None if it never ran."""
        found: Mapping[str, str] | None = self._get(_CONFIG, pillow)
        return found

    def set_configuration(self, pillow: str, digests: Mapping[str, str]) -> None:
        """Let a pillow run with a configuration, wherever it does.

        Raises:
            StoreWriteError: it is not known whether that was written.
        """
        self._write({(_CONFIG, pillow): dict(digests)})

    def _get(self, *key: str | int) -> Any:
        return self._records[key][1] if key in self._records else None

    def _write(self, values: Mapping[tuple[str | int, ...], Any]) -> None:
        messages = [
            Message(
                id=str(key),
                key=_encode(key),
                topic=self._topic,
                value=_encode(value),
                headers=[],
                partition=0,
            )
            for key, value in values.items()
        ]
        try:
            delivery = self._producer.send(messages)
        except PillowError as error:
            raise StoreWriteError(f"Kafka refused the record: {error}") from error
        if delivery.failures:
            raise StoreWriteError(f"Kafka refused the record: {next(iter(delivery.failures.values()))}")
        for key, value in values.items():
            self._records[key] = (self._records[key][0] if key in self._records else -1, value)

    def _take(self, message: LibraryMessage) -> None:
        """Keep a record. One that no pillowd has written is left out."""
        offset = message.offset() or 0
        try:
            key, value = _decode_key(message.key() or b""), _decode_value(message.value() or b"\xc0")
        except (ValueError, RecursionError) as error:  # not MessagePack, or not UTF-8
            _log.warning("control.not_read", topic=self._topic, offset=offset, error=str(error))
            return
        if offset > self._records.get(key, (-1, None))[0]:
            self._records[key] = offset, value
            self._changed.set()

    def _apply(self, on_change: Callable[[], None]) -> None:
        while self._changed.wait():
            self._changed.clear()
            try:
                on_change()
            except Exception as error:  # noqa: BLE001 - whatever it is, the wishes of operators stand
                _log.error("control.not_applied", error=repr(error))
                self._changed.set()
                gevent.sleep(_RETRY_SECONDS)


class PauseReplica:
    """The pauses of a service, which replace the local ones; see `Pauses.attach`.

    Args:
        control: the service's records.
    """

    def __init__(self, control: ServiceControl) -> None:
        self._control = control

    def read(self) -> Mapping[Key, bytes] | None:
        """Return the paused pillows; None if no pillow was ever paused."""
        if not self._control.has_pauses:
            return None
        return {(key,): b"true" for key in self._control.paused}

    def write(self, entries: Mapping[Key, bytes | None]) -> None:
        """Pause or resume pillows; see `Replica.write`."""
        if entries:
            self._control.set_paused({key: value is not None for (key,), value in entries.items()})
