"""The tails of a pillow's partitions: begun when assigned, drained when revoked, cut when lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, Seq, StoreWriteError, TailKey
from daemon.kafka.offset_metadata import PartitionPosition, decode_offset, encode_offset
from daemon.kafka.partition_group import OWNED_SHARE, AssignedPart, PartitionGroup
from daemon.supervision.paused_pillows import NoPauses
from daemon.supervision.supervisor import Supervisor
from pillows.clock import SystemClock
from pillows.dead_letters.dead_letter import DeadLetter
from pillows.dead_letters.store import DeadLetters
from pillows.errors import RetryableError, StateLostError
from pillows.kafka.group import Offset
from pillows.observer import Observer
from pillows.runtime.status import State, TailStatus

KEY = TailKey("cases", "couch/cases")
PART = TailKey("cases", "couch/cases#3")
LETTER = DeadLetter(
    tail=PART, transport="es", id="bad", rev="1-a", leaf_version=1, stage="transport", error="no"
)
AT_7 = Checkpoint(seq=Seq.of(7), epoch=2)


class Consumer:
    """The member of a group, as far as a test needs it."""

    session_seconds = 10.0
    trouble = None

    def __init__(self) -> None:
        self.polled_at = SystemClock().monotonic()
        self.stored: dict[int, Offset] = {}
        self.commits: list[Offset] = []
        self.owned: set[int] = set()

    def committed(self, partitions: Sequence[int]) -> Mapping[int, Offset]:
        return {number: self.stored[number] for number in partitions if number in self.stored}

    def commit(self, offsets: Sequence[Offset]) -> None:
        self.commits += offsets

    def owns(self, partition: int) -> bool:
        return partition in self.owned

    def count_partitions(self) -> int:
        return 12


class Control:
    """The requests of operators."""

    def __init__(self) -> None:
        self.resets = 0
        self.noted: dict[int, int] = {}

    def refresh(self) -> None:
        """Does nothing: the requests are up to date."""

    def count_resets(self, _pillow: str) -> int:
        return self.resets

    def find_noted_resets(self, _pillow: str, number: int) -> int | None:
        return self.noted.get(number)

    def note_offset(self, _pillow: str, number: int, resets: int) -> None:
        self.noted[number] = resets


class Letters:
    """The topic of dead letters."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], bytes] = {}
        self.released: list[int] = []

    def take(
        self, _pillow: str, number: int, _check_ownership: Callable[[], None]
    ) -> Mapping[tuple[str, str], bytes]:
        return self.entries if number == 3 else {}

    def release(self, _pillow: str, number: int) -> None:
        self.released.append(number)
        gevent.sleep(0.01)  # as to close a connection takes

    def write(self, entries: Mapping[Any, bytes | None]) -> None:
        for (_, transport, id), entry in entries.items():
            if entry is None:
                self.entries.pop((transport, id), None)
            else:
                self.entries[transport, id] = entry


class Tail:
    """Saves one change more when it is asked to stop."""

    state = State.LIVE

    def __init__(self, assigned: AssignedPart, world: World) -> None:
        self._assigned = assigned
        self._world = world
        self.letters = world.dead_letters.ids(assigned.part.key, "es")

    @property
    def ticked_at(self) -> float:
        return SystemClock().monotonic()

    def run(self, stop: Event) -> None:
        key, store = self._assigned.part.key, self._assigned.checkpoints
        checkpoint = store.get(key)
        assert checkpoint is not None
        self._world.running[key] = self
        try:
            stop.wait()
            gevent.sleep(self._world.drain_seconds)
            store.save(key, replace(checkpoint, seq=Seq.of(9), changes=2, pass_epoch=2))
        finally:
            self._world.dead_letters.add(self._world.last_letters)
            del self._world.running[key]

    def status(self) -> TailStatus:
        return TailStatus(pillow=KEY.pillow, source=self._assigned.part.key.source, state=self.state)


class World:
    """A group with a fake consumer and fake tails, supervised by a real supervisor."""

    def __init__(self, folder: Path) -> None:
        self.consumer, self.control, self.letters = Consumer(), Control(), Letters()
        self.running: dict[TailKey, Tail] = {}
        self.assigned: dict[int, AssignedPart] = {}
        self.drain_seconds = 0.0
        self.last_letters: list[DeadLetter] = []
        self.dead_letters = DeadLetters(folder / "dead-letters")
        self.dead_letters.replicate_to(self.letters)
        clock = SystemClock()
        self.supervisor = Supervisor({}, clock=clock, observer=Observer(), pauses=NoPauses())
        arguments: Any = {"control": self.control, "letters": self.letters}
        self.group = PartitionGroup(
            KEY,
            self._make_tail,
            supervisor=self.supervisor,
            dead_letters=self.dead_letters,
            clock=clock,
            **arguments,
        )
        self.group.consumer = self.consumer  # type: ignore[assignment]

    def assign(self, *numbers: int) -> None:
        self.consumer.owned.update(numbers)
        assert self.group.assigned(numbers) == {}, "a tail seeks its own position"
        gevent.sleep(0)

    def _make_tail(self, assigned: AssignedPart) -> Any:
        self.assigned[assigned.part.number] = assigned
        return lambda: Tail(assigned, self)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.supervisor.stop_all()
    world.supervisor.kill_all("the test is over")
    gevent.sleep(0)
    world.dead_letters.close()


def test_an_assigned_partition_goes_on_from_its_offset_and_a_new_one_begins(world: World) -> None:
    world.consumer.stored[3] = encode_offset(3, PartitionPosition(checkpoint=AT_7))
    world.assign(3, 4)
    assert world.assigned[3].checkpoints.get(PART) == AT_7
    begun = world.assigned[4].checkpoints.get(PART)
    assert begun is not None
    assert begun.pass_epoch == PASS_TO_BEGIN
    assert sorted(map(str, world.running)) == ["cases@couch/cases#3", "cases@couch/cases#4"]
    assert world.assigned[3].part.term != world.assigned[4].part.term


def test_a_revoked_partition_drains_and_what_it_has_acknowledged_is_committed(world: World) -> None:
    world.assign(3)
    world.drain_seconds = 0.05
    (offset,) = world.group.revoked([3])
    assert offset.offset == 9
    assert decode_offset("cases", offset).checkpoint.changes == 2
    assert world.consumer.commits[-1] == offset
    assert not world.running
    assert world.control.noted == {3: 0}, "a later loss of the offset is noticed"


def test_a_tail_that_does_not_drain_in_time_is_killed_and_commits_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.kafka.partition_group.REVOKE_SECONDS", 1.05)
    world.consumer.stored[3] = encode_offset(3, PartitionPosition(checkpoint=AT_7))
    world.assign(3)
    world.drain_seconds = 60.0
    (offset,) = world.group.revoked([3])
    assert offset.offset == 7
    gevent.sleep(0)
    assert not world.running
    assert not world.consumer.commits


def test_after_a_revoke_or_a_loss_nothing_is_committed_ever(world: World) -> None:
    world.assign(3, 4)
    late = [world.assigned[number].checkpoints for number in (3, 4)]
    world.group.revoked([3])
    before = len(world.consumer.commits)
    world.group.lost([4])
    gevent.sleep(0)
    assert not world.running
    for checkpoints in late:
        with pytest.raises(StoreWriteError):
            checkpoints.save(PART, replace(AT_7, seq=Seq.of(99)))
    assert len(world.consumer.commits) == before
    assert sorted(world.letters.released) == [3, 4]


def test_a_partition_that_comes_back_has_a_new_tail(world: World) -> None:
    world.assign(3)
    former = world.assigned[3].part.term
    (world.consumer.stored[3],) = world.group.revoked([3])
    world.assign(3)
    assert world.assigned[3].part.term != former
    assert list(world.running) == [PART]


def test_dead_letters_are_there_before_the_tail_begins_and_leave_with_the_partition(world: World) -> None:
    world.dead_letters.add([LETTER])
    world.dead_letters.sync(PART)
    world.dead_letters.load(PART, {})
    assert world.dead_letters.count(PART) == 0
    assert list(world.letters.entries) == [("es", "bad")], "the replica keeps it"

    world.assign(3)
    assert world.running[PART].letters == {"bad"}
    world.group.revoked([3])
    assert world.dead_letters.count(PART) == 0
    assert list(world.letters.entries) == [("es", "bad")]


def test_what_the_killed_tail_of_a_lost_partition_leaves_is_forgotten(world: World) -> None:
    world.assign(3)
    world.last_letters = [LETTER]
    world.group.lost([3])
    assert not world.running
    assert world.dead_letters.count(PART) == 0
    world.dead_letters.sync(PART)
    assert not world.letters.entries


def test_an_offset_that_is_gone_stops_that_partition_alone(world: World) -> None:
    world.control.noted = {3: 0}
    world.assign(3, 4)
    with pytest.raises(StateLostError, match="checkpoint reset cases"):
        world.assigned[3].checkpoints.get(PART)
    assert list(world.running) == [TailKey("cases", "couch/cases#4")]


def test_a_reset_reaches_a_running_tail(world: World) -> None:
    world.assign(3)
    world.control.resets = 2
    world.group.tick()
    assert decode_offset("cases", world.consumer.commits[-1]).resets == 2


def test_no_write_begins_where_the_group_may_have_moved_on(world: World) -> None:
    world.assign(3)
    check = world.assigned[3].check_ownership
    check()
    world.consumer.polled_at -= OWNED_SHARE * 10.0 + 0.1
    with pytest.raises(RetryableError, match="has not polled for"):
        check()
    world.consumer.polled_at = SystemClock().monotonic()
    check()
    world.consumer.owned.clear()
    with pytest.raises(RetryableError, match="another member"):
        check()


def test_after_the_process_stood_still_no_write_begins_until_the_group_has_told(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.assign(3)
    check = world.assigned[3].check_ownership
    check()
    now = SystemClock().monotonic()
    later = [now + 7.0]
    monkeypatch.setattr("pillows.clock.SystemClock.monotonic", lambda _: later[0])
    world.consumer.polled_at = later[0]
    with pytest.raises(RetryableError, match="was suspended"):
        check()
    later[0] += 4.0
    world.consumer.polled_at = later[0]
    check()


def test_each_document_belongs_to_one_partition(world: World) -> None:
    """After missed purges each tail removes what is gone of its own documents, and of no others."""
    world.assign(*range(12))
    for number in range(50):
        ours = [each for each, part in world.assigned.items() if part.is_ours(f"d{number}")]
        assert len(ours) == 1
