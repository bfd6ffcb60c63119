"""A feed that learns from the records of a partition which documents to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Seq
from pillows.change_topics.lag import LAG_SECONDS, UNPURGED_LAG_SECONDS, Lag
from pillows.change_topics.partition_feed import PartitionFeed
from pillows.change_topics.records import DATABASE_KEY, IDENTITY, PurgeRecord, encode_change, encode_purge
from pillows.change_topics.requests import Request, encode_request
from pillows.errors import InvalidSeqError, RecreatedError, RetryableError
from pillows.feed.base import PURGED_REV, DatabaseIdentity
from pillows.feed.documents.fetcher import LaggingError
from pillows.models import Change, ChangeBatch
from tests.support.clock import FakeClock

IDENTIFIED = DatabaseIdentity(instance_start_time="200")


class Record:
    """A message as the library hands it over."""

    def __init__(self, offset: int, key: bytes, value: bytes, created_at: str = "200") -> None:
        self._fields = offset, key, value
        self._headers = [("src", b"couch/cases"), (IDENTITY, created_at.encode())]

    def error(self) -> Any:
        return None

    def offset(self) -> int:
        return self._fields[0]

    def key(self) -> bytes:
        return self._fields[1]

    def value(self) -> bytes:
        return self._fields[2]

    def headers(self) -> Any:
        return self._headers


class Note:
    """A note of the library: the end of the partition, or an offset that does not exist."""

    def __init__(self, name: str, offset: int = 0) -> None:
        self._name, self._offset = name, offset

    def error(self) -> Note:
        return self

    def name(self) -> str:
        return self._name

    def str(self) -> str:
        return self._name

    def offset(self) -> int:
        return self._offset


def record(offset: int, id: str, version: int = 1, *, deleted: bool = False, **more: Any) -> Record:
    change = Change(id=id, revs=(f"{version}-x",), leaf_version=version, deleted=deleted)
    return Record(offset, id.encode(), encode_change(change), **more)


class Reader:
    """Hands over what a test gives it, call by call; sets the stop after that."""

    polled_at = 0.0
    trouble = None

    def __init__(self, stop: Event, *taken: Sequence[Any]) -> None:
        self.sought: list[int] = []
        self.refusals: list[Exception] = []
        self._stop = stop
        self._taken = list(taken)

    def seek(self, offset: int) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.sought.append(offset)

    def take(self, seconds: float) -> Any:
        if not self._taken:
            self._stop.set()
            return []
        return self._taken.pop(0)

    def wake(self) -> None:
        """Nothing waits."""

    def end_offset(self) -> int:
        return 100


class Couch:
    """A database: id -> version; a negative one is deleted."""

    trouble = None
    documents_at_once = 3

    def __init__(self, **versions: int) -> None:
        self.versions = versions
        self.asked: list[list[str]] = []
        self.failures: list[Exception] = []
        self.lags = 0
        self.purges = 1

    def identify(self) -> DatabaseIdentity:
        return DatabaseIdentity(purge_seq=f"{self.purges}-x")

    def leaves(self, ids: Sequence[str]) -> dict[str, int]:
        return {id: abs(self.versions[id]) for id in ids if id in self.versions}

    def load_current(self, changes: Sequence[Change], identity: DatabaseIdentity | None) -> list[Change]:
        assert identity is not None
        assert identity.instance_start_time == "200"
        assert not any(change.deleted for change in changes), "a record is no state"
        if self.failures:
            raise self.failures.pop()
        self.asked.append([change.id for change in changes])
        for change in changes:
            if abs(self.versions.get(change.id, change.leaf_version)) < change.leaf_version:
                self.lags += 1
                raise LaggingError("a copy lags")
        return [self._find(change) for change in changes]

    def _find(self, change: Change) -> Change:
        version = self.versions.get(change.id)
        if version is None:
            return msgspec.structs.replace(change, deleted=True)
        raw = None if version < 0 else msgspec.Raw(b"{}")
        return Change(change.id, (f"{abs(version)}-x",), abs(version), deleted=version < 0, raw=raw)


def read(
    couch: Couch,
    *taken: Sequence[Any],
    since: Seq = Seq.BEGINNING,
    identity: DatabaseIdentity = IDENTIFIED,
    **more: Any,
) -> list[ChangeBatch]:
    """The batches of a feed that are more than signs of life."""
    stop = Event()
    more = {"clock": FakeClock(), **more}
    feed: Any = PartitionFeed(Reader(stop, *taken), couch, pillow="cases", **more)  # type: ignore[arg-type]
    return [each for each in feed.batches(since, identity, stop) if not each.is_sign_of_life]


def states(batches: Sequence[ChangeBatch]) -> list[tuple[str, int, bool]]:
    return [(each.id, each.leaf_version, each.deleted) for batch in batches for each in batch.changes]


def test_a_record_names_a_document_and_is_never_taken_for_its_state() -> None:
    couch = Couch(a=5, b=-4)
    found = read(couch, [record(7, "a", 2), record(8, "b", 3), record(9, "c", 6, deleted=True)])
    assert states(found) == [("a", 5, False), ("b", 4, True), ("c", 6, True)]
    assert found[-1].seq == Seq.of(10)
    assert not found[-1].caught_up
    assert found[-1].pending == 90


def test_the_end_of_a_partition_is_the_head_and_passes_what_holds_no_message() -> None:
    found = read(Couch(a=1), [record(7, "a"), Note("_PARTITION_EOF", 9)], [Note("_PARTITION_EOF", 12)])
    assert [(each.seq, each.caught_up, each.pending) for each in found] == [
        (Seq.of(9), True, 0),
        (Seq.of(12), True, 0),
    ]


def test_each_document_of_a_piece_is_read_once_and_pieces_fit_into_memory() -> None:
    couch = Couch(a=1, b=1, c=1, d=1)
    ids = ["a", "b", "a", "a", "c", "d"]
    found = read(couch, [record(offset, id) for offset, id in enumerate(ids, start=1)])
    assert couch.asked == [["a", "b", "c"], ["d"]]
    assert [each.seq for each in found] == [Seq.of(6), Seq.of(7)]


def test_design_documents_are_left_out_and_the_position_passes_them() -> None:
    taken = [record(3, "_design/x")]
    couch = Couch()
    assert [(each.changes, each.seq) for each in read(couch, taken)] == [([], Seq.of(4))]
    assert not couch.asked
    assert states(read(Couch(**{"_design/x": 1}), taken, skip_design=False)) == [("_design/x", 1, False)]


def test_nothing_is_handed_over_past_a_piece_that_can_not_be_read_now() -> None:
    couch = Couch(a=1, b=1)
    couch.failures = [RetryableError("away"), RetryableError("still away")]
    found = read(couch, [record(1, "a")], [record(2, "b")])
    assert states(found) == [("a", 1, False), ("b", 1, False)]


def test_a_version_that_a_purge_or_a_backup_took_back_is_not_waited_for_without_end() -> None:
    couch, clock = Couch(a=3, b=2), FakeClock()
    began = clock.monotonic()
    found = read(couch, [record(1, "a", 5), record(2, "b", 2), record(3, "gone", 4)], clock=clock)
    assert states(found) == [("a", 3, False), ("b", 2, False), ("gone", 4, True)]
    assert LAG_SECONDS < clock.monotonic() - began < 5 * LAG_SECONDS, "copies of a cluster lag, too"


def test_a_version_is_waited_for_while_one_copy_of_the_database_has_it() -> None:
    """A lower one is believed only if it was found again and again."""
    couch, clock = Couch(a=3), FakeClock()
    answers = [3, 3, 5, 3, 3, 3]
    couch.leaves = lambda ids: {id: answers.pop(0) for id in ids}
    assert states(read(couch, [record(1, "a", 5)], clock=clock)) == [("a", 3, False)]
    assert answers == []


def test_without_a_purge_a_lower_version_is_believed_after_minutes_only() -> None:
    couch, clock = Couch(a=3), FakeClock()
    couch.purges = 0
    began = clock.monotonic()
    assert states(read(couch, [record(1, "a", 5)], clock=clock)) == [("a", 3, False)]
    assert clock.monotonic() - began > UNPURGED_LAG_SECONDS


def test_one_lower_version_shortens_the_wait_for_some_minutes_and_not_for_ever() -> None:
    """Hours later, a partition of the cluster's network may last for tens of seconds."""
    couch, clock = Couch(a=3, b=3), FakeClock()
    lag = Lag(couch, clock)  # type: ignore[arg-type] # no more is asked for here
    looked_at: list[float] = []

    def look(ids: Sequence[str]) -> dict[str, int]:
        looked_at.append(clock.monotonic())
        return dict.fromkeys(ids, 3)

    def wait() -> float:
        """Seconds until a lower version is expected, asked every second; the three looks are apart."""
        lag.begin()
        lag.note()
        looked_at.clear()
        began, changes = clock.monotonic(), [Change(id="a", revs=("5-x",), leaf_version=5)]
        while lag.expect(changes)[0].leaf_version == 5:
            clock.advance(1)
        assert len(looked_at) == 3
        assert looked_at[-1] - looked_at[0] >= 6
        return clock.monotonic() - began

    couch.leaves = look
    assert wait() > LAG_SECONDS
    assert wait() < 20, "a restored backup has many"
    clock.advance(200)
    assert wait() > LAG_SECONDS


def test_a_version_that_comes_late_is_handed_over() -> None:
    couch, clock = Couch(a=3), FakeClock()

    def catch_up(ids: Sequence[str]) -> dict[str, int]:
        couch.versions["a"] = 5
        return dict.fromkeys(ids, 3)

    couch.leaves = catch_up
    assert states(read(couch, [record(1, "a", 5)], clock=clock)) == [("a", 5, False)]


def test_it_reads_from_its_position_on_and_tries_again_to_get_there() -> None:
    for since, sought in ((Seq.BEGINNING, OFFSET_BEGINNING), (Seq.of(812), 812)):
        stop = Event()
        reader = Reader(stop)
        reader.refusals = [RetryableError("a rebalance"), RetryableError("a rebalance")]
        feed: Any = PartitionFeed(reader, Couch(), pillow="cases", clock=FakeClock())  # type: ignore[arg-type]
        list(feed.batches(since, IDENTIFIED, stop))
        assert reader.sought == [sought]


def test_a_position_that_kafka_does_not_have_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidSeqError, match="checkpoint reset KEY"):
        read(Couch(), [Note("_AUTO_OFFSET_RESET")], since=Seq.of(7))
    with pytest.raises(InvalidSeqError, match="not a position in a topic"):
        read(Couch(), since=Seq.of("7-g1A"))


def test_what_the_reader_notes_of_purges_comes_after_what_was_purged() -> None:
    purge = encode_purge(PurgeRecord(purge_seq="9-x", recreated=False, missed=3))
    purged = Change(id="a", revs=(PURGED_REV,), leaf_version=0, deleted=True)
    taken = [Record(4, b"a", encode_change(purged)), Record(5, DATABASE_KEY, purge)]
    first, second = read(Couch(), taken)
    assert states([first]) == [("a", 0, True)]
    assert first.seq is None
    assert (second.seq, second.purge_seq, second.recreated, second.purges_missed) == (
        Seq.of(6),
        "9-x",
        False,
        3,
    )


def told(offset: int, purge_seq: str, **more: Any) -> Record:
    purge = PurgeRecord(purge_seq=purge_seq, **{"recreated": False, "missed": 0, **more})
    return Record(offset, DATABASE_KEY, encode_purge(purge))


def test_missed_purges_are_noticed_though_their_record_was_compacted() -> None:
    """All records about purges have one key, so a pillow that was away may find only the last one."""
    last = told(9, "503-x", missed_at="500")
    known = replace(IDENTIFIED, purge_seq="2-x")
    (found,) = read(Couch(), [last], identity=known)
    assert (found.purge_seq, found.purges_missed, found.recreated) == ("503-x", 501, True)
    for told_before in ("500", "502-x"):
        (found,) = read(Couch(), [last], identity=replace(IDENTIFIED, purge_seq=told_before))
        assert (found.purges_missed, found.recreated) == (0, False), "they were told"
    both = read(Couch(), [told(7, "500-x", missed=400, missed_at="500"), last], identity=known)
    assert [each.purges_missed for each in both if each.purge_seq] == [498, 0]


def test_purges_before_a_pass_are_no_news_to_it() -> None:
    """Or else one that was begun because too many were missed would stop for them again."""
    history = [told(3, "300-x"), told(5, "500-x", missed=400, missed_at="500")]
    later = told(7, "501-x", missed_at="500")
    found = read(Couch(), [*history, later], identity=replace(IDENTIFIED, purge_seq="500-x"))
    assert [(each.purge_seq, each.purges_missed) for each in found if each.purge_seq] == [("501-x", 0)]


def test_purges_of_a_source_that_was_restored_are_news() -> None:
    known = replace(IDENTIFIED, purge_seq="501-x")
    back, later = told(3, "300-x", is_back=True), told(5, "310-x", missed=2, missed_at="310")
    found = read(Couch(), [back, later], identity=known)
    told_of = [(each.purge_seq, each.purges_missed) for each in found if each.purge_seq]
    assert told_of == [("300-x", 0), ("310-x", 10)]


@pytest.mark.parametrize("purges", [7, 10, 12])
def test_what_was_missed_after_the_source_went_back_is_noticed_in_the_last_record(purges: int) -> None:
    """A pillow was away at purge 10, the source went back to 5, and 7 was missed."""
    last = told(9, f"{purges}-x-~1", missed_at="7-~1")
    (found,) = read(Couch(), [last], since=Seq.of(4), identity=replace(IDENTIFIED, purge_seq="10-x"))
    assert (found.purge_seq, found.purges_missed > 0) == (f"{purges}-x-~1", True)
    (found,) = read(Couch(), [last], since=Seq.of(4), identity=replace(IDENTIFIED, purge_seq="7-x-~1"))
    assert found.purges_missed == 0, "it was told"


def test_what_was_missed_before_the_source_went_back_is_missed_by_who_was_not_told_then_only() -> None:
    history = [told(3, "300-x-~1", missed_at="500"), told(5, "301-x-~1", missed_at="500")]
    for known, missed in (("501-x", [0, 0]), ("2-x", [298, 0])):
        found = read(Couch(), history, since=Seq.of(2), identity=replace(IDENTIFIED, purge_seq=known))
        assert [each.purges_missed for each in found if each.purge_seq] == missed


def test_a_pass_after_the_source_went_back_does_not_miss_what_was_before_it() -> None:
    history = [told(3, "7-x-~1", missed_at="7-~1"), told(5, "8-x-~1", missed_at="7-~1")]
    found = read(Couch(), history, identity=replace(IDENTIFIED, purge_seq="7-x"))
    assert [(each.purge_seq, each.purges_missed) for each in found if each.purge_seq] == [("8-x-~1", 0)]


def test_purges_of_a_former_database_are_no_news() -> None:
    record = Record(5, DATABASE_KEY, told(5, "9-x", missed=9).value(), created_at="100")
    assert [(each.seq, each.purge_seq) for each in read(Couch(), [record])] == [(Seq.of(6), None)]


def test_a_record_of_a_former_database_tells_the_id_alone() -> None:
    """A document that the present database does not have loses its rows as after a purge."""
    taken = [record(1, "gone", 9, created_at="100"), record(2, "there", 9, created_at="100")]
    assert states(read(Couch(there=2), taken)) == [("gone", 0, True), ("there", 2, False)]


def test_a_record_of_a_later_database_stops_the_feed() -> None:
    with pytest.raises(RecreatedError, match="on_recreated"):
        read(Couch(a=1), [record(1, "a", created_at="300")])


def test_an_identity_that_a_server_does_not_tell_is_no_evidence() -> None:
    assert states(read(Couch(a=1), [record(1, "a", created_at="")])) == [("a", 1, False)]


def request(offset: int, *fields: Any) -> Record:
    return Record(offset, *encode_request(Request(*fields)))


def test_a_request_has_a_document_of_its_own_pillow_read_again_in_any_version() -> None:
    couch = Couch(a=5, b=2)
    found = read(couch, [request(1, "cases", "a"), request(2, "others", "b"), request(3, "cases", "gone")])
    assert states(found) == [("a", 5, False), ("gone", 0, True)]
    assert found[-1].seq == Seq.of(4)


def test_a_request_never_lowers_the_version_that_a_change_before_or_after_it_has_told() -> None:
    for taken in (
        [record(1, "a", 5), request(2, "cases", "a")],
        [request(1, "cases", "a"), record(2, "a", 5)],
    ):
        couch = Couch(a=3)
        assert states(read(couch, taken)) == [("a", 3, False)]
        assert couch.lags > 1, "it was waited for"


def test_a_request_raises_the_epoch_of_all_that_comes_with_it_or_later_in_its_piece() -> None:
    couch = Couch(a=1, b=1, c=1, d=1)
    found = read(
        couch,
        [record(1, "a"), request(2, "others", "", 9), request(3, "cases", "", 4), record(4, "b")],
        [record(5, "c")],
    )
    assert [(each.least_epoch, len(each.changes)) for each in found] == [(4, 2), (0, 1)]
    assert [each.least_epoch for each in read(Couch(), [request(1, "cases", "", 4)])] == [4], "also alone"


def test_a_request_leaves_design_documents_out_as_changes_do() -> None:
    assert states(read(Couch(**{"_design/x": 1}), [request(1, "cases", "_design/x")])) == []
