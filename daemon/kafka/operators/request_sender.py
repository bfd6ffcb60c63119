"""Have the daemons of a service write documents of a pillow again; each writes those of its partitions.

A backfill sends its documents with it as it does with the sender of a tail. See `requests` for the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from gevent.event import Event

from checkpoints import TailKey
from daemon.kafka.engine import Engine
from daemon.kafka.offset_metadata import decode_offset
from daemon.kafka.operators.group_offsets import GroupOffsets, read_group_offsets
from pillows.change_topics.partitioner import find_partition
from pillows.change_topics.requests import Request, encode_request
from pillows.clock import Clock
from pillows.errors import RetryableError
from pillows.feed.base import PURGED_REV
from pillows.kafka.message import Message
from pillows.kafka.producer import Producer
from pillows.kafka.topics import describe
from pillows.models import Change
from pillows.retry.backoff import Backoff
from pillows.retry.cancellable import StopAwareWaiter

#: Time between two looks at the group's offsets; each partition commits every 5 s by default.
_STEP_SECONDS = 1.0

T = TypeVar("T")


class RequestSender:
    """Sends requests for the documents of one pillow.

    Args:
        engine: the service.
        tail: the pillow's key.
        clock: for waits.
        halt: ends every wait.

    Attributes:
        waiter: waits until `halt` is set.
    """

    def __init__(self, engine: Engine, tail: TailKey, clock: Clock, halt: Event) -> None:
        self.waiter = StopAwareWaiter(clock, halt)
        self._engine = engine
        self._tail = tail
        transactions = engine.topics.requests_id(tail.pillow, engine.instance_id)
        self._producer = Producer(engine.options, transactions)

    def raise_epoch(self) -> None:
        """Have every partition's documents be written under a higher epoch, and wait until all are.

        Raises:
            FatalError: the offset of a partition can't be read, or the brokers refuse us.
            StoppedError: a stop was requested.
        """
        before = self._retry(self._read)
        epoch = 1 + max((self._find_epoch(before, number) for number in before.committed), default=0)
        requests = [(Request(self._tail.pillow, epoch=epoch), number) for number in before.ends]
        self._retry(lambda: self._send(requests))
        while self._find_least_epoch() < epoch:
            self.waiter.wait(_STEP_SECONDS)

    def read(self, ids: Sequence[str]) -> Sequence[Change]:
        """Return changes that stand for documents: the daemon that has their partition reads them."""
        return [Change(id=id, revs=(PURGED_REV,), leaf_version=0) for id in ids]

    def write(self, changes: Sequence[Change]) -> None:
        """Request documents. They are written when `save` returns.

        Raises:
            FatalError: the brokers refuse us.
            StoppedError: a stop was requested.
        """
        self._retry(lambda: self._send(self._place(changes)))

    def save(self) -> None:
        """Wait until everything that was requested is acknowledged, or stored as a dead letter.

        Raises:
            FatalError: the brokers refuse us.
            StoppedError: a stop was requested.
        """
        ends = self._look().ends
        while self._look().find_behind(ends):
            self.waiter.wait(_STEP_SECONDS)

    def is_source_well(self) -> bool:
        """Return True: nothing is read here."""
        return True

    def close(self) -> None:
        """Close the connection."""
        self._producer.close()

    def _look(self) -> GroupOffsets:
        return self._retry(self._read)

    def _read(self) -> GroupOffsets:
        return read_group_offsets(self._engine.options, self._engine.topics, self._tail)

    def _find_least_epoch(self) -> int:
        found = self._look()
        return min(self._find_epoch(found, number) for number in found.ends)

    def _find_epoch(self, found: GroupOffsets, number: int) -> int:
        """Return the epoch of a partition; 0 if it has no offset yet."""
        offset = found.committed.get(number)
        return 0 if offset is None else decode_offset(self._tail.pillow, offset).checkpoint.epoch

    def _place(self, changes: Sequence[Change]) -> list[tuple[Request, int]]:
        count = describe(self._producer).partitions[self._engine.topics.changes(self._tail.source)]
        return [(Request(self._tail.pillow, each.id), find_partition(each.id, count)) for each in changes]

    def _send(self, requests: Sequence[tuple[Request, int]]) -> None:
        topic = self._engine.topics.changes(self._tail.source)
        messages: list[Message] = []
        for request, number in requests:
            key, value = encode_request(request)
            messages.append(
                Message(id=request.id, key=key, topic=topic, value=value, headers=[], partition=number)
            )
        self._producer.send_all(messages)

    def _retry(self, attempt: Callable[[], T]) -> T:
        """Return the result of an attempt; repeat it while the brokers are away."""
        backoff = Backoff()
        while True:
            try:
                return attempt()
            except RetryableError as error:
                self.waiter.wait(backoff.after(error))
