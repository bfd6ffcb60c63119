"""After missed purges, what targets hold is compared with what the source knows, and no more is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gevent
import pytest
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Checkpoint, ConfigDigest, Seq
from pillows.errors import FatalError, PurgesMissedError, RetryableError
from pillows.feed.base import PURGED_REV, DatabaseIdentity
from pillows.models import Batch, ChangeBatch, WriteResult, write_version
from pillows.observer import Observer
from pillows.retry.cancellable import StopAwareWaiter
from pillows.retry.retrier import Retrier
from pillows.runtime.housekeeping import Job
from pillows.runtime.missed_purges import GROUP_DOCUMENTS, MissedPurges, MissedPurgesOptions
from pillows.runtime.startup import outputs_digest
from pillows.runtime.status import State
from pillows.transports.base import AppendOnlyTransport, Stored, Transport
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan

TICK = ChangeBatch(changes=(), seq=None)
GAP = ChangeBatch(changes=(), seq=None, purge_seq="1600-x", purges_missed=1600)


class Holder(MemoryTransport):
    """Tell which documents it holds; `errors` are raised first."""

    verifiable = True

    def __init__(self, *ids: str, rev: str | None = None, **more: Any) -> None:
        super().__init__(**more)
        self.ids = list(ids)
        self.rev = rev
        self.errors: list[Exception] = []

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        assert ids is None
        if self.errors:
            raise self.errors.pop(0)
        version = None if self.rev else write_version(1, 1)
        held = self.ids or [id for id in self.target["rows"] if id in self.live()]
        for begin in range(0, len(held), 150):
            yield [Stored(id=id, rev=self.rev, write_version=version) for id in held[begin : begin + 150]]


class Source:
    """A source that knows these documents."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = set(known)
        self.at_seconds: list[float] = []
        self.clock = FakeClock()
        self.on_look: Callable[[], None] = lambda: None

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        assert len(ids) <= GROUP_DOCUMENTS
        self.at_seconds.append(self.clock.monotonic())
        found = {id: 1 for id in ids if id in self.known}
        self.on_look()
        return found


class Scene:
    """Missed purges on their own.

    Attributes:
        notes, events: what was noted, and reported.
        jobs: what was started.
    """

    def __init__(self, source: Source, *transports: Transport, is_part: bool = False, **options: Any) -> None:
        self.notes: list[str] = []
        self.events: list[tuple[str, Any]] = []
        self.jobs: list[Job] = []
        events = self.events

        class Listener(Observer):
            def warning(self, tail, *, event, details):
                events.append((event, dict(details)))

        self.purges = MissedPurges(
            source=source,  # type: ignore[arg-type] # no more is asked for here
            make_transports=lambda: transports,
            retrier=Retrier(KEY, StopAwareWaiter(source.clock, Event()), Listener()),
            options=MissedPurgesOptions(**options),
            start=self.jobs.append,
            note=self.notes.append,
            is_part=is_part,
        )

    def follow(self, *batches: ChangeBatch, compare_after: int = 1) -> list[ChangeBatch]:
        """Follow the batches; the comparison runs after that many batches."""

        def given() -> Iterator[ChangeBatch]:
            for number, each in enumerate(batches):
                if number == compare_after:
                    self.purges.job.run()
                yield each

        return list(self.purges.follow(given()))


def test_a3_what_is_absent_twice_is_deleted_and_then_the_position_moves() -> None:
    source = Source(["a", "c"])
    holder = Holder("a", "b", "c", "d")
    scene = Scene(source, holder)
    taken = scene.follow(GAP, batch("2-b"), TICK)
    gone = next(each for each in taken if each.changes)
    assert [(c.id, c.rev, c.leaf_version, c.deleted) for c in gone.changes] == [
        ("b", PURGED_REV, 0, True),
        ("d", PURGED_REV, 0, True),
    ]
    assert [each.purge_seq for each in taken] == [None, None, None, "1600-x", None]
    assert scene.events == [("purges.compared", {"documents": 4, "removed": 2})]
    assert [bool(note) for note in scene.notes] == [True, False]
    assert "1600 purges were missed" in scene.notes[0]
    assert source.at_seconds[-1] - source.at_seconds[0] >= 60
    assert holder.closed == 1


def test_a3_without_a_gap_a_purge_position_moves_at_once() -> None:
    scene = Scene(Source(["a"]), Holder("a"))
    known = ChangeBatch(changes=(), seq=None, purge_seq="7-x")
    assert scene.follow(known, TICK, compare_after=9) == [known, TICK]
    assert (scene.jobs, scene.notes, scene.events) == ([], [], [])


@pytest.mark.parametrize(("held", "recreated"), [(["a"], True), (["a", "b"], False)])
def test_a3_the_end_of_a_gap_raises_the_epoch_unless_a_removal_did(held: list[str], recreated: bool) -> None:
    taken = Scene(Source(["a"]), Holder(*held)).follow(GAP, TICK)
    (end,) = [each for each in taken if each.purge_seq]
    assert end.recreated is recreated


def test_a3_gaps_are_counted_together_until_the_comparison_has_ended() -> None:
    scene = Scene(Source(["a"]), Holder("a"))
    more = ChangeBatch(changes=(), seq=None, purge_seq="1700-x", purges_missed=100)
    scene.follow(GAP, more, TICK, compare_after=2)
    assert len(scene.jobs) == 1, "one comparison is enough for both"
    scene.follow(replace(GAP, purges_missed=3), TICK)
    assert "3 purges were missed" in scene.notes[-2], "the earlier ones are settled"


def test_a3_a_gap_that_a_record_told_of_keeps_the_position_before_that_record() -> None:
    """A restart would begin behind it, and the record does not come again."""
    scene = Scene(Source(["a"]), Holder("a", "b"), is_part=True)
    told = replace(GAP, seq=Seq.of("8"))
    later = ChangeBatch(changes=(change("x"),), seq=Seq.of("9"), least_epoch=3)
    end = ChangeBatch(changes=(), seq=Seq.of("10"), caught_up=True, pending=0)
    taken = scene.follow(batch("7"), told, later, end, TICK, batch("11"), compare_after=4)
    seqs = [None if each.seq is None else each.seq.value for each in taken]
    assert seqs == ["7", None, None, None, None, None, "10", "11"]
    assert (taken[2].changes, taken[2].least_epoch) == (later.changes, 3), "all else goes on"
    assert [c.id for c in taken[5].changes] == ["b"]
    assert (taken[6].purge_seq, taken[6].caught_up, taken[6].changes) == ("1600-x", True, ())


def test_a3_a_gap_in_a_topic_that_is_too_large_is_closed_by_a_pass() -> None:
    """`verify` compares no further than the position, which the gap holds back."""
    scene = Scene(Source([]), Holder("a", "b"), is_part=True, max_documents=0)
    with pytest.raises(FatalError, match="`pillowd checkpoint reset KEY`"):
        scene.follow(replace(GAP, seq=Seq.of("8")), TICK)


class Log(AppendOnlyTransport):
    """Only ever grow."""

    def __init__(self) -> None:
        self.name = "log"
        self.closed = 0

    def write(self, batch: Batch) -> WriteResult:
        raise AssertionError("nothing is written here")

    def close(self) -> None:
        self.closed += 1


def test_a3_what_was_appended_stays_and_the_next_target_is_compared() -> None:
    log = Log()
    taken = Scene(Source(["a"]), log, Holder("a", "b")).follow(GAP, TICK)
    assert [c.id for each in taken for c in each.changes] == ["b"]
    assert log.closed == 1


def test_a3_of_several_targets_each_is_compared_and_the_largest_counts() -> None:
    ids = [f"{n:04}" for n in range(1000)]
    scene = Scene(Source(ids), Holder(*ids, "one"), Holder("two"), max_documents=0)
    taken = scene.follow(GAP, TICK)
    assert [c.id for each in taken for c in each.changes] == ["one", "two"]
    assert scene.events == [("purges.compared", {"documents": 1001, "removed": 2})]


def test_a_tail_removes_ten_thousand_documents_by_itself_after_a_minute() -> None:
    assert MissedPurgesOptions() == MissedPurgesOptions(max_documents=10_000, overlap_seconds=60.0)


def test_a3_what_comes_back_between_the_two_looks_stays() -> None:
    """A copy that lags does not know it yet."""
    source = Source(["a"])
    source.on_look = lambda: source.known.add("b")
    taken = Scene(source, Holder("a", "b")).follow(GAP, TICK)
    assert not any(each.changes for each in taken)
    assert taken[-1].purge_seq == "1600-x"


def test_a3_nothing_absent_is_not_waited_for() -> None:
    source = Source(["a"])
    Scene(source, Holder("a")).follow(GAP, TICK)
    assert len(set(source.at_seconds)) == 1


def test_a3_a_later_purge_position_waits_for_the_gap_and_comes_with_its_end() -> None:
    scene = Scene(Source(["a"]), Holder("a", "b"))
    later = ChangeBatch(changes=(change("x", deleted=True),), seq=None, purge_seq="1601-x")
    taken = scene.follow(GAP, later, TICK, compare_after=2)
    assert [each.purge_seq for each in taken if each.purge_seq] == ["1601-x"]
    assert taken[1].changes == later.changes
    after = scene.follow(ChangeBatch(changes=(), seq=None, purge_seq="1602-x"), compare_after=9)
    assert after[0].purge_seq == "1602-x", "the gap is closed"


def test_a3_what_is_missed_during_a_comparison_is_compared_again() -> None:
    scene = Scene(Source(["a"]), Holder("a", "b"))

    def batches() -> Iterator[ChangeBatch]:
        yield GAP
        scene.purges.job.run()
        yield ChangeBatch(changes=(), seq=None, purge_seq="3000-x", purges_missed=1400)
        assert len(scene.jobs) == 2
        scene.purges.job.run()
        yield TICK

    taken = list(scene.purges.follow(batches()))
    assert [each.purge_seq for each in taken if each.purge_seq] == ["3000-x"]


@pytest.mark.parametrize(
    ("held", "absent", "purges", "most", "refused"),
    [
        (1000, 11, 1600, 10, True),
        (1000, 10, 1600, 0, False),  # 1 % of the rows
        (1000, 11, 1600, 0, True),
        (1000, 200, 150, 10_000, True),  # more than were purged
        (1000, 150, 150, 10_000, False),
        (1000, 9, 1, 10_000, False),
        (300, 300, 5, 10_000, True),  # a restored node must not empty a target
    ],
)
def test_a3_more_than_is_removed_without_asking_stops_with_count_and_command(
    held: int, absent: int, purges: int, most: int, refused: bool
) -> None:
    ids = [f"{n:04}" for n in range(held)]
    scene = Scene(Source(ids[absent:]), Holder(*ids), max_documents=most)
    gap = ChangeBatch(changes=(), seq=None, purge_seq="9-x", purges_missed=purges)
    if not refused:
        taken = scene.follow(gap, TICK)
        assert sum(len(each.changes) for each in taken) == absent
        return
    with pytest.raises(FatalError, match=rf"{absent} of {held} documents.*`pillowd verify KEY --repair`"):
        scene.follow(gap, TICK)


def test_a3_a_target_that_cannot_tell_asks_for_a_pass_and_files_for_nothing() -> None:
    silent = Holder()
    silent.verifiable = False  # type: ignore[misc] # of the instance, for a test
    with pytest.raises(PurgesMissedError, match="1600 purges were missed, and memory can't tell"):
        Scene(Source(["a"]), silent).follow(GAP, TICK)


def test_a3_a_replica_s_own_design_documents_are_not_absent() -> None:
    scene = Scene(Source(["a"]), Holder("a", "_design/own", "b", rev="1-a"))
    taken = scene.follow(GAP, TICK)
    assert [c.id for each in taken for c in each.changes] == ["b"]
    rows = Scene(Source(["a"]), Holder("a", "_design/rows")).follow(GAP, TICK)
    assert [c.id for each in rows for c in each.changes] == ["_design/rows"]


def test_a3_a_target_that_is_away_is_waited_for() -> None:
    holder = Holder("a", "b")
    holder.errors = [RetryableError("away"), RetryableError("away")]
    taken = Scene(Source(["a"]), holder).follow(GAP, TICK)
    assert [c.id for each in taken for c in each.changes] == ["b"]


# ---------------------------------------------------------------------- in a running tail


class Ticking(ListFeed):
    """Give signs of life when it has nothing more."""

    def batches(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        for each in super().batches(since, identity, stop):
            yield each
            if each is self.queue[-1]:
                break
        while not stop.is_set():
            gevent.sleep(0.01)
            yield TICK


def test_a3_until_the_gap_is_closed_the_tail_is_not_live_and_says_why(tmp_path, running, clock) -> None:
    target: dict[str, Any] = {"rows": {}, "epoch": None}
    feed = Ticking([batch("1-a", change("a"), change("b")), batch("2-b", caught_up=True), GAP])
    feed.sums = {"a": 1}
    feed.identity = DatabaseIdentity(server_uuid="u", instance_start_time="1", purge_seq="0-x")
    states: list[tuple[State, str]] = []

    class Listener(Observer):
        def state(self, tail, *, state, reason):
            states.append((state, reason))

    made = plan(tmp_path, feed, Holder(target=target), clock=clock, observer=Listener())
    run = running(made)
    run.until(lambda: set(MemoryTransport(target=target).live()) == {"a"})
    run.until(lambda: run.tail.state is State.LIVE)
    assert run.finish().purge_seq == "1600-x"
    assert any(state is State.CATCHING_UP and "1600 purges were missed" in why for state, why in states)


class Purged(ListFeed):
    """Report missed purges to whoever does not know the last purge position."""

    def batches(self, since: Seq, identity: DatabaseIdentity | None, stop: Event) -> Iterator[ChangeBatch]:
        if identity is None or identity.purge_seq != "1600-x":
            yield GAP
        yield from super().batches(since, identity, stop)


def test_a3_where_a_target_cannot_tell_a_pass_closes_the_gap(tmp_path, running) -> None:
    """The pass does not meet what was purged, and sweeps it."""
    rows = {id: (write_version(1, 1), {"cases": ({"n": 1},)}) for id in ("a", "ghost")}
    target = MemoryTransport(target={"rows": rows, "epoch": 1})
    feed = Purged([batch("2-b", change("a", n=1), caught_up=True)])
    feed.identity = DatabaseIdentity(server_uuid="u", instance_start_time="1", purge_seq="1600-x")
    made = plan(tmp_path, feed, target)
    made.store.save(
        KEY,
        Checkpoint(
            seq=Seq.of("2-b"),
            epoch=1,
            pass_epoch=1,
            pass_done=True,
            instance_start_time="1",
            purge_seq="0-x",
            digest=ConfigDigest(source="s", outputs=outputs_digest([target]), pipeline="p"),
        ),
    )
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)
    checkpoint = run.finish()
    assert set(target.live()) == {"a"}
    assert (checkpoint.purge_seq, checkpoint.pass_done, checkpoint.epoch) == ("1600-x", True, 2)
