"""A consumer of Kafka's client library for greenlets: nothing here blocks the hub.

The library lives in a thread of its own; see `ConsumerThread`. There is no automatic commit and no automatic
reset: after `Listener.revoked` has returned, nothing is committed for its partitions, ever. (An explicit
commit is fenced by the group's generation and not by ownership, so a late one may succeed.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import gevent
from confluent_kafka import Consumer as LibraryConsumer
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka import Message as LibraryMessage
from gevent.event import AsyncResult, Event
from gevent.queue import Queue

from checkpoints.files.blocking import call_safely
from pillows.errors import PillowError, RetryableError
from pillows.kafka.consumer_thread import Call, ConsumerThread, Rebalance
from pillows.kafka.delivery import to_failure
from pillows.kafka.errors import to_error
from pillows.kafka.group import REVOKE_SECONDS, Group, Listener, Offset
from pillows.kafka.options import KafkaConnection
from pillows.kafka.producer import CALL_SECONDS
from pillows.kafka.settings import make_member_settings

T = TypeVar("T")

#: Most bytes of one partition that may be queued for their greenlet.
QUEUED_BYTES = 2**20
#: Longest time to leave the group.
CLOSE_SECONDS = 5.0
#: Interval at which a close checks whether the thread has ended.
_STEP_SECONDS = 0.02

_LOGGER = logging.getLogger("librdkafka")


class Consumer:
    """A member of a consumer group that reads one topic.

    Args:
        options: the cluster.
        group: the membership.
        topic: the topic, which must exist.
        listener: is called when partitions are assigned, revoked or lost.
        max_queued_bytes: most bytes of one partition that wait to be taken; then it is paused.

    Attributes:
        session_seconds: a member that is silent for longer loses its partitions.
    """

    def __init__(
        self,
        options: KafkaConnection,
        group: Group,
        topic: str,
        listener: Listener,
        *,
        max_queued_bytes: int = QUEUED_BYTES,
    ) -> None:
        self.session_seconds = group.session_seconds
        self._options = options
        self._topic = topic
        self._listener = listener
        self._rebalances: Queue[Rebalance | PillowError] = Queue()
        self._arrived: dict[int, Event] = {}
        self._server: gevent.Greenlet[..., None] | None = None
        self._watcher: Any = gevent.get_hub().loop.async_()
        self._thread = ConsumerThread(
            make_member_settings(options, group),
            servers=options.servers,
            topic=topic,
            max_queued_bytes=max_queued_bytes,
            session_seconds=group.session_seconds,
            wake=self._watcher.send,
        )

    @property
    def polled_at(self) -> float:
        """Monotonic seconds of the last poll: a member that does not poll may have lost its partitions."""
        return self._thread.polled_at

    @property
    def trouble(self) -> str | None:
        """Why no messages arrive; None while they do."""
        return self._thread.trouble

    @property
    def partitions(self) -> list[int]:
        """The partitions that are read now."""
        return sorted(self._thread.queues)

    def start(self) -> None:
        """Join the group."""
        self._watcher.start(self._on_wake)
        self._server = gevent.spawn(self._serve)
        self._thread.start()

    def take(self, partition: int, seconds: float) -> list[LibraryMessage]:
        """Take the messages that have arrived from a partition.

        They include errors about the partition (`ABOUT_PARTITIONS`): its end was reached, or the requested
        offset no longer exists. The offset of an end error also counts control records.

        Args:
            partition: the partition.
            seconds: how long to wait for the first.

        Returns:
            The messages; empty if none came, or the partition is not read.
        """
        if not self._thread.queues.get(partition):
            arrived = self._arrived.setdefault(partition, Event())
            arrived.clear()  # the hub sets it after we wait, also for what has come since the look
            arrived.wait(seconds)
        queue = self._thread.queues.get(partition)
        return queue.take() if queue is not None else []

    def commit(self, offsets: Sequence[Offset]) -> None:
        """Commit offsets of partitions that are read.

        Raises:
            RetryableError: they were not committed, for example because the group is rebalancing.
            FatalError: a retry cannot help: another member with our id has joined, or the brokers deny
                access.
        """
        self._call(lambda library: self._thread.commit(library, offsets))

    def seek(self, partition: int, offset: int) -> None:
        """Read a partition from the given offset. Messages read before the call are dropped.

        Do not call this from `assigned` or `revoked`: it waits for them to return.

        Args:
            partition: the partition. If `assigned` returned no offset for it, reading starts with this call.
            offset: a number, or `OFFSET_BEGINNING`.

        Raises:
            PillowError: the partition is no longer assigned to us, or the brokers refuse.
        """
        self._call(
            lambda library: self._thread.seek(library, partition, offset), self._thread.call_between_polls
        )

    def committed(self, partitions: Sequence[int]) -> Mapping[int, Offset]:
        """Return the committed offsets; partitions without one are left out.

        Raises:
            PillowError: the brokers do not answer.
        """
        asked = [TopicPartition(self._topic, number) for number in partitions]
        found: list[TopicPartition] = self._call(lambda library: library.committed(asked, CALL_SECONDS))
        for each in found:
            if each.error is not None:
                raise to_error(to_failure(each.error), self._options.servers)
        return {
            each.partition: Offset(partition=each.partition, offset=each.offset, metadata=each.metadata or "")
            for each in found
            if each.offset >= 0
        }

    def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first offset of a partition, and the one after its last message.

        Raises:
            PillowError: the brokers do not answer.
        """
        asked = TopicPartition(self._topic, partition)
        found: tuple[int, int] = self._call(
            lambda library: library.get_watermark_offsets(asked, CALL_SECONDS)
        )
        return found

    def end_offset(self, partition: int) -> int | None:
        """Return the offset after the last message, as last seen; do not ask the brokers."""
        queue = self._thread.queues.get(partition)
        return None if queue is None else queue.end_offset

    def owns(self, partition: int) -> bool:
        """Return whether a partition is assigned to us, as of the last poll."""
        return self._thread.owns(partition)

    def count_partitions(self) -> int:
        """Return how many partitions the topic has.

        Raises:
            PillowError: the brokers do not answer.
        """
        found = self._call(lambda library: library.list_topics(self._topic, timeout=CALL_SECONDS))
        return len(found.topics[self._topic].partitions)

    def wake(self, partition: int) -> None:
        """End a `take` that waits."""
        if partition in self._arrived:
            self._arrived[partition].set()

    def close(self) -> None:
        """Drain and commit the assigned partitions, and leave the group. May be called twice.

        A static member keeps its partitions until its session times out.
        """
        if self._server is None:
            return
        self._thread.close()
        with gevent.Timeout(REVOKE_SECONDS + CLOSE_SECONDS, exception=None):
            while not self._thread.has_ended:
                gevent.sleep(_STEP_SECONDS)
        self._server.kill(block=False)
        self._server = None
        self._watcher.stop()

    def _call(self, work: Callable[[LibraryConsumer], T], put: Callable[[Call], None] | None = None) -> T:
        """Return the result of a call that is made in the thread."""
        answer: AsyncResult[tuple[T | None, BaseException | None]] = AsyncResult()

        def make(library: LibraryConsumer | None) -> None:
            outcome: tuple[T | None, BaseException | None]
            if library is None:
                outcome = None, RetryableError("The membership in the group has ended.")
            else:
                outcome = call_safely(lambda: work(library))
            self._thread.tell(partial(answer.set, outcome))

        (put or self._thread.call)(make)
        if not answer.wait(2 * CALL_SECONDS):
            raise RetryableError("Kafka's consumer did not answer.")
        result, error = cast("tuple[T | None, BaseException | None]", answer.get())
        if isinstance(error, KafkaException):
            raise to_error(to_failure(error.args[0]), self._options.servers) from error
        if error is not None:
            raise error
        return cast("T", result)

    # --- on the hub

    def _on_wake(self) -> None:
        """Take the events of the thread. Runs in the hub, so it must not wait."""
        self._thread.hub_ran_at = time.monotonic()
        events = self._thread.events
        while events:
            event = events.popleft()
            if isinstance(event, Rebalance | PillowError):
                self._rebalances.put_nowait(event)
            elif isinstance(event, str):
                _LOGGER.debug(event)
            else:
                event()
        for partition, queue in self._thread.queues.items():
            if queue and partition in self._arrived:
                self._arrived[partition].set()

    def _serve(self) -> None:
        """Call the listener."""
        while True:
            event = self._rebalances.get()
            if isinstance(event, PillowError):
                self._listener.failed(event)
            else:
                event.answer(self._ask(event))

    def _ask(self, event: Rebalance) -> Any:
        listener = self._listener
        calls = {"assigned": listener.assigned, "revoked": listener.revoked, "lost": listener.lost}
        try:
            return calls[event.kind](event.partitions)
        except PillowError as error:
            return error
        except Exception as error:  # noqa: BLE001 - it ends the membership, and is reported there
            return RetryableError(f"Partitions {list(event.partitions)} cannot be {event.kind}: {error!r}.")
