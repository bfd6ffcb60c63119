"""Run a tail for each partition of a pillow that is assigned to this daemon.

A revoked partition is drained: its tail stops, the acknowledged position is committed, and only then the next
owner gets it. The tail of a lost partition is killed: the next owner may already write. Afterwards nothing is
committed for the partition.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

import gevent
import structlog
from confluent_kafka import Message as LibraryMessage
from msgspec import Struct

from checkpoints import StoreWriteError, TailKey
from daemon.kafka.offset_metadata import PartitionPosition, find_position
from daemon.kafka.partition_checkpoints import PartitionCheckpoints
from daemon.kafka.service_control import ServiceControl
from daemon.supervision.supervised_tail import TailFactory
from daemon.supervision.supervisor import Supervisor
from pillows.change_topics.partition_feed import PartitionReader
from pillows.change_topics.partition_keys import partition_key
from pillows.change_topics.partitioner import find_partition
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.errors import PillowError, RetryableError, StateLostError
from pillows.kafka.consumer import Consumer
from pillows.kafka.group import REVOKE_SECONDS, Offset
from pillows.transports.base import Part

#: The part of the time for a revoke that is reserved for the commit.
_COMMIT_SECONDS = 1.0
#: Longest time for a killed tail to end.
_KILL_SECONDS = 0.5
#: Longest wait for the tail of an earlier assignment to end, when a partition is assigned again.
_END_SECONDS = 20.0
_STEP_SECONDS = 0.02
#: Longest wait for the brokers' answers at the start of a tail, and the time between two attempts.
_ASK_SECONDS = 20.0
_RETRY_SECONDS = 0.2
#: Without a poll for this share of the session no write begins: when the session ends, the group reassigns
#: the partitions.
OWNED_SHARE = 0.6
#: After the process was suspended, the time in which the group reports whether partitions were lost.
_SUSPECT_SECONDS = 3.0

#: How long a known number of partitions is used before it is asked for again.
_COUNT_SECONDS = 30.0

T = TypeVar("T")

_log = structlog.get_logger("pillowd.kafka")


class AssignedPart(Struct, frozen=True, kw_only=True):
    """A partition assigned to this daemon.

    Attributes:
        part: the part of the pillow.
        checkpoints: its checkpoint.
        reader: reads it.
        check_ownership: raises RetryableError while the group may have assigned the partition to another
            member.
        is_ours: returns whether a document belongs to the partition; raises RetryableError while that is
            unknown.
    """

    part: Part
    checkpoints: PartitionCheckpoints
    reader: PartitionReader
    check_ownership: Callable[[], None]
    is_ours: Callable[[str], bool]


class LetterTopics(Protocol):
    """The methods of `Letters` that are used here."""

    def take(
        self, pillow: str, number: int, check_ownership: Callable[[], None]
    ) -> Mapping[tuple[str, str], bytes]:
        """Return the dead letters of a partition; from now on they may be written."""

    def release(self, pillow: str, number: int) -> None:
        """Write no more dead letters of a partition."""


class PartitionGroup:
    """The partitions of one pillow; a `Listener` of the consumer.

    Args:
        key: the pillow's.
        make_tail: returns a factory for the tail of an assigned partition.
        supervisor: runs the tails.
        control: the pauses and resets that operators have requested.
        dead_letters: those of this process.
        letters: those of the service.
        clock: for waits.

    Attributes:
        consumer: the member of the group; set before it is started.
        error: why the membership has ended; None while it lasts.
    """

    consumer: Consumer

    def __init__(
        self,
        key: TailKey,
        make_tail: Callable[[AssignedPart], TailFactory],
        *,
        supervisor: Supervisor,
        control: ServiceControl,
        dead_letters: DeadLetters,
        letters: LetterTopics,
        clock: Clock,
    ) -> None:
        self.error: PillowError | None = None
        self._key = key
        self._make_tail = make_tail
        self._supervisor = supervisor
        self._control = control
        self._dead_letters = dead_letters
        self._letters = letters
        self._clock = clock
        self._parts: dict[int, AssignedPart] = {}
        self._ticked_at = clock.monotonic()
        self._suspect_until = 0.0
        self._count = 0
        self._counted_at = 0.0

    @property
    def numbers(self) -> Sequence[int]:
        """The partitions that have a tail."""
        return sorted(self._parts)

    def tick(self) -> None:
        """Apply the operators' resets, and check whether the process was suspended."""
        now = self._clock.monotonic()
        if now - self._ticked_at > OWNED_SHARE * self.consumer.session_seconds:
            self._suspect_until = now + _SUSPECT_SECONDS
        self._ticked_at = now
        resets = self._control.count_resets(self._key.pillow)
        for number, each in list(self._parts.items()):
            try:
                each.checkpoints.take_resets(resets)
            except StoreWriteError as error:  # at the next tick
                _log.warning("reset.not_committed", pillow=str(self._key), partition=number, error=str(error))

    # --- Listener

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Start the tails of partitions; each reads from its checkpoint."""
        committed = self._retry(lambda: self._find_committed(partitions))
        letters = {
            number: self._retry(
                partial(self._letters.take, self._key.pillow, number, partial(self._check_ownership, number))
            )
            for number in partitions
        }
        for number in partitions:
            self._wait_for_end(number)
            self._begin(number, committed.get(number), letters[number])
        _log.info("partitions.assigned", pillow=str(self._key), partitions=list(partitions))
        return {}

    def revoked(self, partitions: Sequence[int]) -> Sequence[Offset]:
        """Drain the tails of partitions, and return their acknowledged offsets."""
        until = self._clock.monotonic() + REVOKE_SECONDS - _COMMIT_SECONDS
        keys = self._remove(partitions)
        self._wait(keys, until)
        late = [key for key in keys if key in self._supervisor.running]
        for key in late:
            self._supervisor.kill(key, "it did not drain before its partition was revoked")
        self._wait(late, self._clock.monotonic() + _KILL_SECONDS)
        offsets = [each.checkpoints.offset for each in self._end(partitions)]
        _log.info(
            "partitions.revoked",
            pillow=str(self._key),
            partitions=list(partitions),
            cut=[str(key) for key in late],
        )
        return [offset for offset in offsets if offset is not None]

    def lost(self, partitions: Sequence[int]) -> None:
        """Kill the tails of partitions without a commit."""
        for key in self._remove(partitions):
            self._supervisor.kill(key, "its partition was lost")
        self._end(partitions)
        _log.warning("partitions.lost", pillow=str(self._key), partitions=list(partitions))

    def failed(self, error: PillowError) -> None:
        """Note why the membership has ended."""
        self.error = error

    # --- parts

    def _find_committed(self, partitions: Sequence[int]) -> Mapping[int, Offset]:
        self._control.refresh()  # a reset that came before counts
        return self.consumer.committed(partitions)

    def _retry(self, ask: Callable[[], T]) -> T:
        """Return the brokers' answer; ask again while a new partition has no known leader."""
        until = self._clock.monotonic() + _ASK_SECONDS
        while True:
            try:
                return ask()
            except RetryableError:
                if self._clock.monotonic() > until:
                    raise
                gevent.sleep(_RETRY_SECONDS)

    def _begin(self, number: int, committed: Offset | None, letters: Mapping[tuple[str, str], bytes]) -> None:
        key = partition_key(self._key, number)
        self._dead_letters.load(key, letters)
        assigned = AssignedPart(
            part=Part(key=key, number=number, term=f"{self._clock.wall():.0f}-{secrets.token_hex(3)}"),
            checkpoints=PartitionCheckpoints(
                key,
                number,
                self._find_position(number, committed),
                offsets=self.consumer,
                on_commit=lambda position: self._note_offset(number, position),
            ),
            reader=_Reader(self.consumer, number),
            check_ownership=lambda: self._check_ownership(number),
            is_ours=lambda id: find_partition(id, self._count_partitions()) == number,
        )
        self._parts[number] = assigned
        self._supervisor.add(key, self._make_tail(assigned))
        self._supervisor.start(key)

    def _find_position(self, number: int, committed: Offset | None) -> PartitionPosition | StateLostError:
        pillow = self._key.pillow
        try:
            return find_position(
                pillow,
                number,
                committed,
                noted_resets=self._control.find_noted_resets(pillow, number),
                resets=self._control.count_resets(pillow),
            )
        except StateLostError as error:  # of this partition alone
            return error

    def _note_offset(self, number: int, position: PartitionPosition) -> None:
        try:
            self._control.note_offset(self._key.pillow, number, position.resets)
        except StoreWriteError as error:  # with the next commit
            _log.warning("offset.not_noted", pillow=str(self._key), partition=number, error=str(error))

    def _remove(self, partitions: Sequence[int]) -> list[TailKey]:
        """Ask the tails of partitions to drain; return their keys."""
        keys = [partition_key(self._key, number) for number in partitions]
        present = [key for key in keys if key in self._supervisor.keys]
        for key in present:
            self._supervisor.remove(key)
        return present

    def _end(self, partitions: Sequence[int]) -> list[AssignedPart]:
        """Refuse further commits for partitions, and return them."""
        ended = [self._parts.pop(number) for number in partitions if number in self._parts]
        for each in ended:
            each.checkpoints.cut()
        for each in ended:  # after all are cut: closing a producer lets others run
            self._letters.release(self._key.pillow, each.part.number)
            self._dead_letters.load(each.part.key, {})  # the next owner's
        return ended

    def _wait(self, keys: Sequence[TailKey], until: float) -> None:
        """Wait until tails have ended, or until the time is up."""
        while any(key in self._supervisor.running for key in keys) and self._clock.monotonic() < until:
            gevent.sleep(_STEP_SECONDS)
        self._supervisor.tick()

    def _wait_for_end(self, number: int) -> None:
        key = partition_key(self._key, number)
        self._wait([key], self._clock.monotonic() + _END_SECONDS)
        if key in self._supervisor.running:
            raise RetryableError(f"The former tail of {key} has not ended yet.")

    def _count_partitions(self) -> int:
        """Return how many partitions the topic has; more may have been added."""
        now = self._clock.monotonic()
        if not self._count or now - self._counted_at > _COUNT_SECONDS:
            self._count, self._counted_at = self.consumer.count_partitions(), now
        return self._count

    def _check_ownership(self, number: int) -> None:
        """See `AssignedPart.check_ownership`."""
        now = self._clock.monotonic()
        silent_seconds = now - min(self.consumer.polled_at, now)
        if now - self._ticked_at > OWNED_SHARE * self.consumer.session_seconds:
            self._suspect_until = now + _SUSPECT_SECONDS
            self._ticked_at = now
        if not self.consumer.owns(number):
            raise RetryableError(f"Partition {number} belongs to another member of the group.")
        if silent_seconds > OWNED_SHARE * self.consumer.session_seconds:
            raise RetryableError(
                f"The group may have given partition {number} away: this daemon has not polled for "
                f"{silent_seconds:.0f} s."
            )
        if now < self._suspect_until:
            raise RetryableError(
                f"The group may have given partition {number} away while this process was suspended."
            )


class _Reader:
    """One partition of a consumer; see `PartitionReader`."""

    def __init__(self, consumer: Consumer, number: int) -> None:
        self._consumer = consumer
        self._number = number

    @property
    def trouble(self) -> str | None:
        return self._consumer.trouble

    @property
    def polled_at(self) -> float:
        return self._consumer.polled_at

    def seek(self, offset: int) -> None:
        self._consumer.seek(self._number, offset)

    def take(self, seconds: float) -> Sequence[LibraryMessage]:
        return self._consumer.take(self._number, seconds)

    def wake(self) -> None:
        self._consumer.wake(self._number)

    def end_offset(self) -> int | None:
        return self._consumer.end_offset(self._number)
