"""The dead letters of a service's pillows, in topics. The owner of a partition has its dead letters.

The key of a message is its partition of `changes`, the transport and the document's id; a null value clears
the dead letter. Each partition's dead letters are written in transactions of one id, so a process that lost
the partition without noticing can't write any more once the next owner has written one. Whoever opens a
producer takes the transactions over, so only the owner of a partition may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import msgspec

from checkpoints import StoreWriteError, TailKey
from checkpoints.replica import Key
from pillows.change_topics.names import LETTER_PARTITIONS, ServiceTopics
from pillows.change_topics.partition_keys import split_partition
from pillows.errors import FencedError, PillowError, RetryableError
from pillows.kafka.message import Message
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import Producer
from pillows.kafka.topic_log import read_log


class _LetterKey(msgspec.Struct, frozen=True, array_like=True):
    partition: int
    transport: str
    id: str


class Letters:
    """Reads and writes dead letters; a replica for `DeadLetters.replicate_to`.

    Args:
        options: the cluster.
        topics: the service's topics.
    """

    def __init__(self, options: KafkaConnection, topics: ServiceTopics) -> None:
        self._options = options
        self._topics = topics
        self._ours: dict[tuple[str, int], Callable[[], None]] = {}
        self._producers: dict[tuple[str, int], Producer] = {}

    def take(
        self, pillow: str, number: int, check_ownership: Callable[[], None]
    ) -> Mapping[tuple[str, str], bytes]:
        """Return the dead letters of a partition that was assigned; until `release` they may be written.

        Args:
            pillow: its name.
            number: the partition.
            check_ownership: see `AssignedPart`; called before each write.

        Returns:
            Transport and id -> entry as JSON.

        Raises:
            PillowError: they can't be read.
        """
        topic = self._topics.letters(pillow)
        log = read_log(self._options, topic, number % LETTER_PARTITIONS)
        found: dict[tuple[str, str], bytes] = {}
        for key, message in log.records.items():
            name = msgspec.msgpack.decode(key, type=_LetterKey)
            if name.partition == number:
                found[name.transport, name.id] = message.value() or b""
        self._ours[pillow, number] = check_ownership
        return found

    def write(self, entries: Mapping[Key, bytes | None]) -> None:
        """Write dead letters by tail, transport and id; None clears one.

        Raises:
            StoreWriteError: some were not written, for example because another process has the partition.
        """
        by_part: defaultdict[tuple[str, int], list[Message]] = defaultdict(list)
        for (tail, transport, id), entry in entries.items():
            pillow, _, source = tail.partition("@")
            _, number = split_partition(TailKey(pillow, source))
            if number is None:  # of a pillow that ran without Kafka; it stays in the state directory
                continue
            by_part[pillow, number].append(
                Message(
                    id=f"{transport} {id}",
                    key=msgspec.msgpack.encode(_LetterKey(number, transport, id)),
                    topic=self._topics.letters(pillow),
                    value=entry,
                    headers=[],
                    partition=number % LETTER_PARTITIONS,
                )
            )
        for part, messages in by_part.items():
            self._send(part, messages)

    def release(self, pillow: str, number: int) -> None:
        """Write no more dead letters of a partition that was revoked or lost."""
        self._ours.pop((pillow, number), None)
        self._close_producer((pillow, number))

    def close(self) -> None:
        """Close every connection."""
        for part in list(self._ours):
            self.release(*part)

    def _send(self, part: tuple[str, int], messages: list[Message]) -> None:
        pillow, _ = part
        try:
            delivery = self._find_producer(part).send(messages)
        except FencedError as error:
            self._close_producer(part)  # if we are the owner after all, the next one fences the other
            raise StoreWriteError(f"Another process writes the dead letters of {pillow}: {error}") from error
        except PillowError as error:
            raise StoreWriteError(f"The dead letters of {pillow} can't be written: {error}") from error
        if delivery.failures:
            failure = next(iter(delivery.failures.values()))
            raise StoreWriteError(f"The dead letters of {pillow} can't be written: {failure}")

    def _find_producer(self, part: tuple[str, int]) -> Producer:
        """Return the producer of a partition that is ours; it fences the one of its former owner."""
        pillow, number = part
        if part not in self._ours:
            raise RetryableError(f"Partition {number} belongs to another daemon.")
        self._ours[part]()
        if part not in self._producers:
            self._producers[part] = Producer(self._options, f"{self._topics.letters(pillow)}.{number}")
        return self._producers[part]

    def _close_producer(self, part: tuple[str, int]) -> None:
        if (producer := self._producers.pop(part, None)) is not None:
            producer.close()
