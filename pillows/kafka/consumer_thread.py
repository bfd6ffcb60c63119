"""The native thread in which a consumer of Kafka's client library runs.

Every call of the library that may wait is made here. The thread uses nothing of gevent but a watcher that
wakes the hub, which any thread may signal. The library's callbacks run inside `poll`, so in this thread, too.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer as LibraryConsumer
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as LibraryMessage
from gevent import monkey
from msgspec import Struct

from pillows.errors import PillowError, RetryableError
from pillows.kafka.delivery import to_failure
from pillows.kafka.errors import Failure, Verdict, to_error
from pillows.kafka.group import ASSIGN_SECONDS, REVOKE_SECONDS, Offset
from pillows.kafka.partition_queue import PartitionQueue

#: Longest wait for a message. A call from the hub has to wait that long.
POLL_SECONDS = 0.1
#: Errors about one partition, which are queued like its messages: its end was reached, or its offset no
#: longer exists.
ABOUT_PARTITIONS = ("_PARTITION_EOF", "_AUTO_OFFSET_RESET")
#: Messages that are taken before waiting calls are run.
_TURN_MESSAGES = 500
#: How long a partition that was just assigned may refuse a seek.
_SEEK_SECONDS = 10.0
#: Where the library begins with a partition that waits for a seek; nothing is taken there. Not the end: a
#: broker is asked where that is, and an answer that came after the seek was taken for the position (7 of 160
#: partitions with librdkafka 2.16), so all between was never read.
_HELD_OFFSET = 0
#: The library's words where another member has joined with our instance id.
_FENCED = "consumer fenced"
#: Interval at which the hub is asked whether it runs.
_HUB_SECONDS = 1.0
#: Interval at which unreachable brokers are asked again: an idle consumer is not notified when they return.
_ASK_SECONDS = 1.0

# Those of the standard library: gevent's would need the hub.
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")
_SimpleQueue: Callable[[], Any] = monkey.get_original("queue", "SimpleQueue")
_Empty: type[Exception] = monkey.get_original("_queue", "Empty")

#: A call for the thread; gets None if the thread has ended.
Call = Callable[[LibraryConsumer | None], None]


class Rebalance(Struct, frozen=True, kw_only=True):
    """A change of the assigned partitions.

    Attributes:
        kind: `assigned`, `revoked` or `lost`.
        partitions: their numbers.
        answer: takes what `Listener` returned, or the error that it raised.
    """

    kind: str
    partitions: Sequence[int]
    answer: Callable[[Any], None]


#: An event for the hub: a rebalance, a line of the library's log, the error that ended the thread, or a
#: function to call on the hub.
Event = Rebalance | str | PillowError | Callable[[], None]


class ConsumerThread:
    """Reads a topic as a member of a group.

    Args:
        settings: of the library.
        servers: the configured brokers, for messages.
        topic: the topic.
        max_queued_bytes: most bytes of one partition that wait for the hub.
        session_seconds: nothing is polled once the hub has not run for so long.
        wake: wakes the hub, which then sets `hub_ran_at`; any thread may call it.

    Attributes:
        events: for the hub.
        queues: partition -> its messages; replaced as a whole.
        polled_at: monotonic seconds of the last poll.
        hub_ran_at: monotonic seconds when the hub was last seen to run.
        trouble: why no messages arrive; None while they do.
        has_ended: whether it has left the group and ended.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        servers: Sequence[str],
        topic: str,
        max_queued_bytes: int,
        session_seconds: float,
        wake: Callable[[], None],
    ) -> None:
        self.events: deque[Event] = deque()
        self.queues: dict[int, PartitionQueue] = {}
        self.polled_at = self.hub_ran_at = time.monotonic()
        self.trouble: str | None = None
        self.has_ended = False
        self._settings = settings | {"logger": self, "error_cb": self._note_error}
        self._servers = servers
        self._topic = topic
        self._max_queued_bytes = max_queued_bytes
        self._session_seconds = session_seconds
        self._wake = wake
        self._calls = _SimpleQueue()
        self._seeks = _SimpleQueue()
        self._owned: set[int] = set()
        self._is_closing = self._is_leaving = False
        self._fatal: PillowError | None = None
        self._asked_at = self._hub_asked_at = 0.0

    # --- called on the hub

    def start(self) -> None:
        """Start the thread."""
        _start_thread(self._run, ())

    def call(self, call: Call) -> None:
        """Run a function in the thread, also during a rebalance. It must not raise."""
        self._put_call(self._calls, call)

    def call_between_polls(self, call: Call) -> None:
        """Run a function in the thread once no rebalance is under way. It must not raise."""
        self._put_call(self._seeks, call)

    def owns(self, partition: int) -> bool:
        """Return whether a partition is assigned, and neither revoked nor lost."""
        return partition in self._owned and not self.has_ended

    def close(self) -> None:
        """Ask the thread to drain the assigned partitions, leave the group and end."""
        self._is_closing = True

    def _put_call(self, calls: Any, call: Call) -> None:
        calls.put(call)
        if self.has_ended:
            self._make_calls(None)

    # --- called in the thread

    def log(self, _level: int, text: str, *args: object) -> None:
        """Take a line of the library's log."""
        self.tell(text % args if args else text)

    def _run(self) -> None:
        try:
            self._read()
        except KafkaException as error:
            self._fatal = to_error(to_failure(error.args[0]), self._servers)
        except BaseException as error:  # noqa: BLE001 - raised on the hub, where somebody sees it
            self._fatal = RetryableError(f"Kafka's consumer failed: {error!r}.")
        finally:
            self.has_ended = True
            self.queues = {}
            self._make_calls(None)
            if self._owned:
                self.tell(Rebalance(kind="lost", partitions=sorted(self._owned), answer=lambda _: None))
            if self._fatal is not None:
                self.tell(self._fatal)
            self._wake()

    def tell(self, event: Event) -> None:
        """Queue an event for the hub, and wake it."""
        self.events.append(event)
        self._wake()

    def _read(self) -> None:
        consumer = LibraryConsumer(self._settings)
        try:
            consumer.subscribe(
                [self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
            )
            while not self._is_closing and self._fatal is None:
                self._make_calls(consumer)
                if self._is_hub_running():
                    self._poll(consumer)
                else:
                    _sleep(POLL_SECONDS)
                self._look_at_queues(consumer)
                self._ask_after_trouble(consumer)
            if self._fatal is None:
                self._drain(consumer, sorted(self._owned))
        finally:
            self._is_leaving = True
            # If another member has taken over our id, there is no membership to leave.
            with suppress(KafkaException, RuntimeError):
                consumer.close()

    def _is_hub_running(self) -> bool:
        """Return whether the hub has run within the session.

        A member that polls keeps its partitions. While something blocks the hub, nothing is done for them, so
        the group must be able to give them to others (after `max.poll.interval.ms`).
        """
        now = time.monotonic()
        if now - self._hub_asked_at > _HUB_SECONDS:
            self._hub_asked_at = now
            self._wake()
        return now - self.hub_ran_at <= self._session_seconds

    def _poll(self, consumer: LibraryConsumer) -> None:
        """Take the messages that have arrived, or wait for the first.

        Take one message per call: a batch could mix messages from before and after a rebalance.
        """
        message = consumer.poll(POLL_SECONDS)
        self.polled_at = time.monotonic()
        if message is None:
            return
        for _ in range(_TURN_MESSAGES):
            self._put(message)
            message = consumer.poll(0)
            if message is None:
                break
        else:
            self._put(message)
        self._wake()

    def _put(self, message: LibraryMessage) -> None:
        error = message.error()
        if error is not None and error.name() not in ABOUT_PARTITIONS:
            self._note_error(error)
            return
        queue = self.queues.get(message.partition() or 0)
        if queue is not None:
            self.trouble = None
            queue.put(message)

    def _look_at_queues(self, consumer: LibraryConsumer) -> None:
        """Note the known end of each partition, and pause partitions whose queue is full.

        The thread keeps polling: otherwise the group would take our partitions away.
        """
        for partition, queue in self.queues.items():
            place = TopicPartition(self._topic, partition)
            _, end_offset = consumer.get_watermark_offsets(place, cached=True)
            queue.end_offset = end_offset if end_offset >= 0 else None
            if queue.is_full is not queue.is_paused:
                (consumer.pause if queue.is_full else consumer.resume)([place])
                queue.is_paused = not queue.is_paused

    def _make_calls(self, consumer: LibraryConsumer | None) -> None:
        for calls in (self._calls, self._seeks):
            with suppress(_Empty):
                while True:
                    calls.get_nowait()(consumer)

    def commit(self, consumer: LibraryConsumer, offsets: Sequence[Offset]) -> None:
        """Commit offsets, and wait for the answer.

        Raises:
            RetryableError: one of the partitions is no longer assigned to us.
            KafkaException: some or all were not committed.
        """
        if gone := {each.partition for each in offsets} - self._owned:
            raise RetryableError(f"The partitions {sorted(gone)} of {self._topic} are not assigned any more.")
        answered = consumer.commit(
            offsets=[
                TopicPartition(self._topic, each.partition, each.offset, each.metadata) for each in offsets
            ],
            asynchronous=False,
        )
        for each in answered or ():
            if each.error is not None:
                raise KafkaException(each.error)

    def seek(self, consumer: LibraryConsumer, partition: int, offset: int) -> None:
        """Read a partition from the given offset, and drop its queued messages.

        Raises:
            RetryableError: the partition is no longer assigned to us.
            KafkaException: the library refuses.
        """
        if partition not in self._owned:
            raise RetryableError(f"The partition {partition} of {self._topic} is not assigned any more.")
        self._drop_queues([partition])
        place = TopicPartition(self._topic, partition, offset)
        until = time.monotonic() + _SEEK_SECONDS
        while True:
            try:
                consumer.seek(place)
                break
            except KafkaException as error:  # the library has not begun with the partition yet
                if error.args[0].name() != "_STATE" or time.monotonic() > until:
                    raise
                _sleep(0.01)
        consumer.resume([place])
        self._add_queues([partition])

    # --- partitions

    def _assign(self, consumer: LibraryConsumer, partitions: Sequence[TopicPartition]) -> None:
        if not partitions:
            return
        numbers = [each.partition for each in partitions]
        self._owned.update(numbers)
        begins: Mapping[int, int] | None = self._ask(consumer, "assigned", numbers, ASSIGN_SECONDS)
        if begins is None:
            self._fatal = self._fatal or RetryableError("No start of the partitions was found in time.")
            begins = {}
        places = [TopicPartition(self._topic, each, begins.get(each, _HELD_OFFSET)) for each in numbers]
        self._add_queues([number for number in numbers if number in begins])
        consumer.incremental_assign(places)
        if waiting := [each for each in places if each.partition not in begins]:
            consumer.pause(waiting)

    def _revoke(self, consumer: LibraryConsumer, partitions: Sequence[TopicPartition]) -> None:
        if partitions and not self._is_leaving:
            self._drain(consumer, [each.partition for each in partitions])

    def _drain(self, consumer: LibraryConsumer, partitions: Sequence[int]) -> None:
        """Ask the hub to drain partitions, and commit the offsets that it returns."""
        if not partitions:
            return
        offsets: Sequence[Offset] = self._ask(consumer, "revoked", partitions, REVOKE_SECONDS) or ()
        if offsets:
            with suppress(KafkaException, RetryableError):  # then the next owner reads them again
                self.commit(consumer, offsets)
        self._owned.difference_update(partitions)
        self._drop_queues(partitions)

    def _lose(self, _consumer: LibraryConsumer, partitions: Sequence[TopicPartition]) -> None:
        if partitions and not self._is_leaving:
            numbers = [each.partition for each in partitions]
            self._owned.difference_update(numbers)
            self._drop_queues(numbers)
            self.tell(Rebalance(kind="lost", partitions=numbers, answer=lambda _: None))

    def _ask(self, consumer: LibraryConsumer, kind: str, partitions: Sequence[int], seconds: float) -> Any:
        """Return the hub's answer; None if it raised an error or was too late."""
        answers: list[Any] = []

        def answer(value: Any) -> None:
            self.call(lambda _: answers.append(value))

        self.tell(Rebalance(kind=kind, partitions=partitions, answer=answer))
        until = time.monotonic() + seconds
        while not answers:  # to answer, the hub may need calls
            left = until - time.monotonic()
            if left <= 0:
                return None
            with suppress(_Empty):
                self._calls.get(timeout=min(left, POLL_SECONDS))(consumer)
        if answers and isinstance(answers[0], PillowError):
            self._fatal = answers[0]
            return None
        return answers[0] if answers else None

    def _add_queues(self, partitions: Sequence[int]) -> None:
        self.queues = self.queues | {each: PartitionQueue(self._max_queued_bytes) for each in partitions}

    def _drop_queues(self, partitions: Sequence[int]) -> None:
        self.queues = {number: queue for number, queue in self.queues.items() if number not in partitions}

    # --- errors

    def _note_error(self, error: KafkaError) -> None:
        failure = _explain(to_failure(error))
        is_fatal = error.fatal() or failure.name == "_FATAL"
        if is_fatal or failure.verdict in (Verdict.ACCESS, Verdict.FENCED):
            self._fatal = self._fatal or to_error(failure, self._servers)
        elif failure.name != "_MAX_POLL_EXCEEDED":
            self.trouble = str(to_error(failure, self._servers))

    def _ask_after_trouble(self, consumer: LibraryConsumer) -> None:
        now = time.monotonic()
        if self.trouble is not None and now - self._asked_at > _ASK_SECONDS:
            with suppress(KafkaException):
                known = consumer.list_topics(self._topic, timeout=_ASK_SECONDS).topics[self._topic]
                if known.error is None:
                    self.trouble = None
            self._asked_at = time.monotonic()


def _explain(failure: Failure) -> Failure:
    """Rename failures whose name misleads: a fenced member, and a topic without a leader."""
    if failure.name == "_FATAL" and _FENCED in failure.text:
        return Failure(name="FENCED_INSTANCE_ID", text=failure.text)
    if failure.name == "UNKNOWN_TOPIC_OR_PART":  # it may be created, or its leader be found
        return Failure(name="LEADER_NOT_AVAILABLE", text=failure.text)
    return failure
