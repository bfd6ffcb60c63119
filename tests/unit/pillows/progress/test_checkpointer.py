"""When a checkpoint is saved, and what is safe before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import Event
from msgspec.structs import replace
from pydantic import ValidationError

from checkpoints import Checkpoint, CheckpointMoved, Seq, StoreWriteError
from pillows.models import ChangeBatch
from pillows.progress.checkpointer import (
    IDLE_SECONDS,
    UNFLUSHED_SAVES,
    UNFLUSHED_SECONDS,
    Checkpointer,
    CheckpointOptions,
    TailProgress,
    is_transactional,
)
from pillows.progress.watermark import PendingRange, WatermarkMove
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from tests.support.clock import FakeClock
from tests.support.list_feed import batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder

START = Checkpoint(seq=Seq.of("1-a"), changes=10)


class Disk:
    """Store, dead letters and target of one checkpointer, in the order in which they are written."""

    def __init__(self) -> None:
        self.clock = FakeClock(auto=False)
        self.order: list[str] = []
        self.stored: Checkpoint | None = START
        self.unsynced_dead_letters = False
        self.full = False
        self.save_seconds = 0.0
        self.copies = True
        self.seen = Recorder()

    def get(self, _: object) -> Checkpoint | None:
        self.order.append("get")
        return self.stored

    def save(self, _: object, checkpoint: Checkpoint) -> None:
        if self.full:
            raise StoreWriteError("full")
        if self.stored is not None and self.stored.edits != checkpoint.edits:
            raise CheckpointMoved
        self.clock.advance(self.save_seconds)
        self.order.append("save")
        self.stored = checkpoint

    def unsynced(self, _: object) -> bool:
        return self.unsynced_dead_letters

    def sync(self, _: object) -> None:
        if self.full:
            raise StoreWriteError("full")
        self.order.append("dead letters")
        self.unsynced_dead_letters = False

    def copy(self, _: Checkpoint) -> bool:
        self.order.append("copy")
        return self.copies

    def checkpointer(self, *, transactional: bool = False, **options: Any) -> Checkpointer:
        return Checkpointer(
            self,  # type: ignore[arg-type]
            KEY,
            START,
            options=CheckpointOptions(**options),
            clock=self.clock,
            observer=self.seen,
            dead_letters=self,  # type: ignore[arg-type]
            copy_to_target=self.copy if transactional else None,
        )


def moved(changes: int = 1, seq: str | None = "2-b", purge_seq: str | None = None) -> WatermarkMove:
    return WatermarkMove(seq=None if seq is None else Seq.of(seq), changes=changes, purge_seq=purge_seq)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.mark.parametrize(("changes", "is_saved"), [(0, False), (2, False), (3, True), (4, True)])
def test_it_is_saved_after_exactly_so_many_changes(disk: Disk, changes: int, is_saved: bool) -> None:
    made = disk.checkpointer(max_uncheckpointed=3)
    made.advance(moved(changes))
    assert (made.saved == made.current) is is_saved
    assert made.current.changes == START.changes + changes


def test_changes_are_counted_from_the_last_save(disk: Disk) -> None:
    made = disk.checkpointer(max_uncheckpointed=3)
    for expected in (1, 2, 0, 1, 2, 0):
        made.advance(moved())
        assert made.current.changes - made.saved.changes == expected


@pytest.mark.parametrize(("age_seconds", "is_saved"), [(4.99, False), (5.0, True), (6.0, True)])
def test_it_is_saved_after_the_interval(disk: Disk, age_seconds: float, is_saved: bool) -> None:
    made = disk.checkpointer(interval=5.0)
    made.advance(moved())
    disk.clock.advance(age_seconds)
    made.save_if_due()
    assert (made.saved == made.current) is is_saved


@pytest.mark.parametrize(
    ("save_seconds", "age_seconds", "is_flushed"),
    [
        (0.0, UNFLUSHED_SECONDS - 0.01, False),
        (0.0, UNFLUSHED_SECONDS, True),
        (0.1, UNFLUSHED_SAVES * 0.1 - 0.01, False),
        (0.1, UNFLUSHED_SAVES * 0.1 + 0.01, True),
        (9.0, 4.99, False),
        (9.0, 5.0, True),
    ],
)
def test_dead_letters_are_flushed_soon_but_no_slow_disk_is_busy_with_them(
    disk: Disk, save_seconds: float, age_seconds: float, is_flushed: bool
) -> None:
    made = disk.checkpointer(interval=5.0)
    disk.save_seconds = save_seconds
    made.advance(moved())
    made.save()
    made.save()  # nothing has moved: the age counts from here
    disk.unsynced_dead_letters = True
    disk.clock.advance(age_seconds)
    made.save_if_due()
    assert disk.unsynced_dead_letters is not is_flushed


def test_dead_letters_are_on_disk_before_the_target_and_the_store_pass_them(disk: Disk) -> None:
    made = disk.checkpointer(transactional=True)
    made.advance(moved())
    disk.unsynced_dead_letters = True
    made.save()
    assert disk.order == ["dead letters", "copy", "save"]


def test_dead_letters_are_on_disk_before_a_raised_epoch_saves_a_position_past_them(disk: Disk) -> None:
    made = disk.checkpointer()
    made.advance(moved())
    disk.unsynced_dead_letters = True
    made.update(epoch=2)
    assert disk.order == ["dead letters", "save"]
    assert disk.stored == made.current == made.saved
    assert (made.current.epoch, made.current.seq) == (2, Seq.of("2-b"))


def test_an_update_that_cannot_be_saved_changes_nothing(disk: Disk) -> None:
    made = disk.checkpointer()
    disk.full = True
    with pytest.raises(StoreWriteError):
        made.update(epoch=2)
    assert made.current == made.saved == START


def test_dead_letters_that_cannot_be_flushed_hold_the_checkpoint_back(disk: Disk) -> None:
    made = disk.checkpointer()
    made.advance(moved())
    disk.unsynced_dead_letters = disk.full = True
    made.save()
    assert (made.saved, disk.stored) == (START, START)
    assert disk.seen.events() == ["checkpoint.not_saved"]
    disk.full = False
    made.save()
    assert disk.stored == made.current != START


def test_a_checkpoint_that_the_target_committed_is_not_copied_there_again(disk: Disk) -> None:
    made = disk.checkpointer(transactional=True)
    committed = made.preview(moved())
    disk.clock.advance(1.0)
    made.advance(moved(), committed)
    made.save()
    assert disk.order == ["save"]
    assert disk.stored == made.current == committed


@pytest.mark.parametrize("different", [{"changes": 99}, {"seq": Seq.of("0-x")}, {"epoch": 7}])
def test_another_checkpoint_in_the_target_is_replaced(disk: Disk, different: dict[str, Any]) -> None:
    made = disk.checkpointer(transactional=True)
    made.advance(moved(), replace(made.preview(moved()), **different))
    made.save()
    assert disk.order == ["copy", "save"]


def test_a_copy_that_failed_is_tried_again_though_nothing_has_moved(disk: Disk) -> None:
    made = disk.checkpointer(transactional=True)
    made.advance(moved())
    disk.copies = False
    made.save()
    disk.copies = True
    made.save()
    made.save()
    assert disk.order == ["copy", "save", "copy", "save", "get"]


def test_after_an_update_the_target_gets_its_copy(disk: Disk) -> None:
    made = disk.checkpointer(transactional=True)
    made.update(epoch=2)
    made.copy()
    made.copy()
    assert disk.order == ["save", "copy"]


@pytest.mark.parametrize("stored", [None, replace(START, edits=1)])
def test_an_operators_edit_is_noticed_though_nothing_has_moved(disk: Disk, stored: Checkpoint | None) -> None:
    made = disk.checkpointer()
    disk.stored = stored
    with pytest.raises(CheckpointMoved):
        made.save()


@pytest.mark.parametrize("full", [False, True])
def test_an_operators_edit_is_noticed_by_a_save_and_on_a_full_disk(disk: Disk, full: bool) -> None:
    made = disk.checkpointer()
    made.advance(moved())
    disk.stored, disk.full = replace(START, edits=1), full
    with pytest.raises(CheckpointMoved):
        made.save()
    assert disk.stored.edits == 1


def test_a_move_without_position_keeps_the_position(disk: Disk) -> None:
    made = disk.checkpointer()
    made.advance(moved(2, seq=None))
    assert (made.current.seq, made.current.changes) == (START.seq, 12)


def test_a_move_carries_the_purge_position_and_one_without_keeps_it(disk: Disk) -> None:
    made = disk.checkpointer()
    made.advance(moved(purge_seq="3-p"))
    made.advance(moved(seq="3-c"))
    assert (made.current.purge_seq, made.current.seq) == ("3-p", Seq.of("3-c"))


def test_a_save_reports_its_checkpoint_and_its_duration(disk: Disk) -> None:
    made = disk.checkpointer()
    disk.save_seconds = 0.25
    made.advance(moved())
    made.save()
    assert disk.seen.of("checkpoint") == [{"checkpoint": made.current, "seconds": 0.25}]


def test_before_the_first_save_dead_letters_are_flushed_after_half_a_second(disk: Disk) -> None:
    made = disk.checkpointer(interval=5.0)
    disk.unsynced_dead_letters = True
    disk.clock.advance(0.49)
    made.save_if_due()
    assert disk.unsynced_dead_letters
    disk.clock.advance(0.02)
    made.save_if_due()
    assert not disk.unsynced_dead_letters


def test_it_tells_why_the_last_save_failed_until_one_succeeds(disk: Disk) -> None:
    made = disk.checkpointer()
    assert made.save_error == ""
    for recover in (made.save, lambda: made.advance(moved())):
        made.advance(moved())
        disk.full = True
        made.save()
        assert made.save_error == "full"
        disk.full = False
        recover()
        made.save()
        assert made.save_error == ""


def test_an_error_is_over_once_there_is_nothing_left_to_save(disk: Disk) -> None:
    made = disk.checkpointer()
    disk.unsynced_dead_letters = disk.full = True
    made.save()
    assert made.save_error == "full"
    disk.full = False
    made.save()
    assert (made.save_error, disk.order) == ("", ["get", "dead letters", "get"])


def test_the_defaults_are_five_seconds_and_a_thousand_changes() -> None:
    options = CheckpointOptions()
    assert (options.interval, options.max_uncheckpointed) == (5.0, 1000)
    assert (UNFLUSHED_SECONDS, UNFLUSHED_SAVES) == (0.5, 20)


@pytest.mark.parametrize(
    ("options", "is_valid"),
    [
        ({"interval": 0.001}, True),
        ({"interval": 0}, False),
        ({"max_uncheckpointed": 1}, True),
        ({"max_uncheckpointed": 0}, False),
    ],
)
def test_both_bounds_must_be_above_zero(options: dict[str, Any], is_valid: bool) -> None:
    if is_valid:
        CheckpointOptions(**options)
    else:
        with pytest.raises(ValidationError):
            CheckpointOptions(**options)


def test_it_tells_when_a_save_is_due(disk: Disk) -> None:
    made = disk.checkpointer(interval=5.0)
    assert made.seconds_to_save() is None
    disk.clock.advance(2.0)
    made.advance(moved())
    assert made.seconds_to_save() == 3.0
    disk.unsynced_dead_letters = True
    assert made.seconds_to_save() == 0.0
    made.save_if_due()
    assert made.seconds_to_save() is None


def test_a_position_that_passed_no_change_is_saved_late(disk: Disk) -> None:
    """An idle source gives another one every 25 s, and each save costs a target a transaction."""
    made = disk.checkpointer(transactional=True, interval=5.0)
    made.advance(moved(0))
    assert made.seconds_to_save() == IDLE_SECONDS
    disk.clock.advance(IDLE_SECONDS - 1.0)
    made.advance(moved(0, seq="3-c"))
    assert disk.order == []
    disk.clock.advance(1.0)
    made.save_if_due()
    assert disk.order == ["copy", "save"]
    assert made.saved.seq == Seq.of("3-c")


def test_a_purge_position_is_saved_soon_though_it_passed_no_change(disk: Disk) -> None:
    made = disk.checkpointer(interval=5.0)
    made.advance(moved(0, purge_seq="1-p"))
    assert made.seconds_to_save() == 5.0


def test_a_save_or_a_copy_that_failed_is_due_again_after_the_interval(disk: Disk) -> None:
    made = disk.checkpointer(transactional=True, interval=5.0)
    made.advance(moved(0))
    disk.copies = False
    made.save()
    assert (made.saved, made.seconds_to_save()) == (made.current, 5.0)
    disk.copies = True
    made.save()
    assert made.seconds_to_save() is None
    made.advance(moved(0, seq="3-c"))
    disk.full = True
    made.save()
    assert made.seconds_to_save() == 5.0


def test_an_edit_that_was_noted_is_met_at_once(disk: Disk) -> None:
    made = disk.checkpointer()
    disk.stored = replace(START, edits=1)
    made.note_edit()
    with pytest.raises(CheckpointMoved):
        made.save_if_due()


@pytest.mark.parametrize("first_pass", [True, False])
@pytest.mark.parametrize("needs_finish", [True, False])
@pytest.mark.parametrize("caught_up", [True, False])
def test_a_pass_ends_with_its_last_rows_where_nothing_is_to_be_removed(
    *, first_pass: bool, needs_finish: bool, caught_up: bool
) -> None:
    disk, transport = Disk(), MemoryTransport()
    transport.needs_finish = needs_finish  # type: ignore[misc]
    checkpointer = disk.checkpointer()
    checkpointer.current = checkpointer.saved = replace(START, first_pass=first_pass)
    retrier = Retrier(KEY, StopAwareWaiter(disk.clock, Event()), disk.seen)
    progress = TailProgress(checkpointer, [transport], retrier)
    early = progress.watermark.begin(ChangeBatch(changes=(), seq=Seq.of("2-b")))
    last = progress.watermark.begin(ChangeBatch(changes=(), seq=Seq.of("3-c"), caught_up=caught_up))
    assert not progress.preview({last: 1}).pass_done  # not while an earlier change is missing
    ends = first_pass and not needs_finish and caught_up
    assert progress.preview({early: 1, last: 1}).pass_done is ends
    assert progress.acknowledge({early: 1, last: 1}).pass_done is ends
    assert progress.checkpoint.pass_done is ends


class Attempts:
    """Makes each attempt once, and notes what for."""

    def __init__(self) -> None:
        self.places: list[str] = []

    def retry_write(self, where: str, attempt: Callable[[], object]) -> object:
        self.places.append(where)
        return attempt()


def progress_of(disk: Disk, *transports: MemoryTransport, attempts: Attempts | None = None) -> TailProgress:
    retrier: Any = attempts or Attempts()
    return TailProgress(disk.checkpointer(max_uncheckpointed=3), transports, retrier)


def begin(progress: TailProgress, changes: int, seq: str) -> PendingRange:
    return progress.watermark.begin(batch(seq, *(change(f"{seq}/{n}") for n in range(changes))))


def test_acknowledged_changes_move_the_checkpoint(disk: Disk) -> None:
    progress = progress_of(disk)
    first, second = begin(progress, 2, "3-c"), begin(progress, 2, "5-e")
    assert progress.acknowledge({second: 2}).changes == 0
    assert progress.checkpoint.seq == START.seq
    assert progress.preview({first: 2}).seq == Seq.of("5-e")
    assert progress.checkpoint.seq == START.seq, "a preview moves nothing"
    assert progress.acknowledge({first: 2}).changes == 4
    assert progress.checkpoint.seq == Seq.of("5-e")
    assert progress.checkpoint is progress.checkpointer.current
    assert disk.stored == progress.checkpoint, "more than `max_uncheckpointed`"


def test_what_the_target_committed_is_taken_over(disk: Disk) -> None:
    progress = progress_of(disk, MemoryTransport(transactional=True))
    pending = begin(progress, 1, "2-b")
    committed = replace(progress.preview({pending: 1}), saved_at=7.0)
    progress.acknowledge({pending: 1}, committed)
    assert progress.checkpoint == committed


def test_a_raised_epoch_is_stored_here_before_it_is_in_the_targets(disk: Disk) -> None:
    one, other, attempts = MemoryTransport("one"), MemoryTransport("other"), Attempts()
    progress = progress_of(disk, one, other, attempts=attempts)
    progress.raise_epoch()
    assert disk.stored is not None
    assert disk.stored.epoch == START.epoch + 1
    assert [target.claims for target in (one, other)] == [[progress.checkpoint]] * 2
    assert attempts.places == ["checkpoint", "one", "other"]


@pytest.mark.parametrize(
    ("transactional", "expected"), [([True], True), ([False], False), ([True, True], False), ([], False)]
)
def test_only_a_single_target_commits_the_checkpoint_with_its_rows(
    disk: Disk, transactional: list[bool], expected: bool
) -> None:
    transports = [MemoryTransport(str(n), transactional=each) for n, each in enumerate(transactional)]
    assert is_transactional(transports) is expected
    assert progress_of(disk, *transports).is_transactional is expected
