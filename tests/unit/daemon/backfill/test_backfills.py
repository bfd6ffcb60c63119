"""Backfills while a tail runs: what is sent, what is waited for, what a crash leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gevent
import pytest

from checkpoints import IntegrityError
from daemon.backfill import carrier
from daemon.backfill.backfill import Backfill, BackfillState, RangeState, Selection
from daemon.backfill.backfills import MAX_ENDED, MAX_WAITING, Backfills, make_selection
from daemon.backfill.carrier import GROUP_DOCUMENTS, BackfillSource
from daemon.backfill.store import BackfillStore
from daemon.errors import ConflictError, InvalidRequestError, NotFoundError
from pillows.clock import SystemClock
from pillows.errors import AccessError, AwayError, FencedError, PillowError, RetryableError
from pillows.feed.document_ids import IdPage
from pillows.models import Change, write_version
from pillows.retry.backoff import Backoff
from tests.support.dict_replica import SlowReplica
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import RunningTail, plan
from tests.support.waiting import wait_until

IDS = [f"d{n:04}" for n in range(250)]


class Ids:
    """Lists ids in pages of forty."""

    def __init__(self, copies: int | None) -> None:
        self.copies = copies
        self.asked: list[str | None] = []
        self.fail: list[PillowError] = []

    def list_prefix(self, prefix: str, after: str | None = None) -> IdPage:
        self.asked.append(after)
        if self.fail:
            raise self.fail.pop(0)
        ids = [id for id in IDS if id.startswith(prefix) and id > (after or "")]
        return IdPage(ids=ids[:40], after=ids[39] if len(ids) > 40 else None)

    def count_copies(self) -> int | None:
        return self.copies

    def close(self) -> None:
        pass


class Source(ListFeed):
    """A source that lists its documents, and raises for some what a test has it raise."""

    def __init__(self) -> None:
        changes = [change(id, "1-a", n=1) for id in IDS]
        super().__init__([batch("5-x", *changes, caught_up=True)])
        self.broken: dict[str, list[PillowError]] = {}
        self.well = True

    def identify(self) -> Any:
        if not self.well:
            raise RetryableError("503")
        return super().identify()

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        for id in ids:
            if self.broken.get(id):
                raise self.broken[id].pop(0)
        return super().current(ids)


class Scene:
    """A tail with its backfills.

    Attributes:
        feed, target, ids: the source, the target, and what lists ids.
        backfills: those of the tail.
    """

    def __init__(self, folder: Path, *, copies: int | None = 1, overlap_seconds: float = 0.0) -> None:
        self.feed, self.target, self.ids = Source(), MemoryTransport(), Ids(copies)
        self._folder = folder
        self._source = BackfillSource(open_ids=lambda: self.ids, overlap_seconds=overlap_seconds)  # type: ignore[arg-type,return-value]
        self.start()

    def start(self) -> None:
        self.backfills = Backfills(BackfillStore(self._folder / "backfills"), SystemClock())
        parts = plan(
            self._folder,
            self.feed,
            self.target,
            backfill=lambda sender: self.backfills.serve(KEY, self._source, sender),
        )
        self.running = RunningTail(parts)
        self.running.until(lambda: len(self.target.live()) == len(IDS))
        self.target.batches.clear()

    def restart(self) -> None:
        self.running.kill()
        self.running.close_stores()
        self.start()

    def send(self, ids: Sequence[str]) -> Backfill:
        return self.until_ended(self.backfills.start(KEY, Selection(), ids))

    def until_ended(self, started: Backfill) -> Backfill:
        self.running.until(lambda: self.backfills.get(started.id).ended_at is not None)
        return self.backfills.get(started.id)

    @property
    def written(self) -> list[str]:
        """The ids that were written, in order."""
        return [document.id for each in self.target.batches for document in each.documents]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        made.append(Scene(tmp_path, **options))
        return made[-1]

    yield make
    for each in made:
        each.running.kill()
        each.running.close_stores()


def test_documents_that_a_target_holds_in_the_same_version_are_written_again(
    scene: Callable[..., Scene],
) -> None:
    made = scene()
    before = made.running.settings.store.get(KEY)
    ended = made.send(["d0003", "d0001"])
    assert (ended.state, ended.count(RangeState.DONE)) == (BackfillState.DONE, 2)
    assert made.written == ["d0003", "d0001"]
    after = made.running.settings.store.get(KEY)
    assert before
    assert after
    assert (after.seq, after.changes) == (before.seq, before.changes)
    assert made.target.target["rows"]["d0001"][0] == write_version(after.epoch, 1)
    assert after.epoch == before.epoch + 1


def test_documents_that_do_not_exist_lose_their_rows(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.target.target["rows"]["phantom"] = (write_version(1, 9), {"cases": [{"n": 1}]})
    made.send(["phantom", "never-was"])
    assert set(made.target.live()) == set(IDS)


def test_the_documents_in_flight_are_bounded(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.send(IDS)
    assert max(map(len, made.feed.looked_up)) == GROUP_DOCUMENTS
    assert made.written == IDS


def test_nothing_is_read_before_every_copy_has_what_the_former_epoch_wrote(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that lags would bring an older state, which the raised epoch would put over the newer one."""
    made = scene(copies=3, overlap_seconds=0.3)
    read_at: list[float] = []
    read = made.feed.current
    monkeypatch.setattr(made.feed, "current", lambda ids: read_at.append(SystemClock().wall()) or read(ids))
    ended = made.send(["d0001"])
    assert ended.raised_at is not None
    assert read_at[0] - ended.raised_at >= 0.3


def test_a_target_that_another_daemon_has_taken_ends_the_pillow(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene()

    def refuse(_: object) -> None:
        raise FencedError("another pillowd writes there")

    monkeypatch.setattr(made.target, "acquire", refuse)
    made.backfills.start(KEY, Selection(), ["d0001"])
    with pytest.raises(FencedError):
        made.running.greenlet.get(timeout=30)
    assert made.written == []


def test_ranges_of_a_listing_are_recorded_and_sent(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.ids.fail = [RetryableError("cut off")]
    ended = made.until_ended(made.backfills.start(KEY, Selection(prefix="d00")))
    assert [each.documents for each in ended.ranges] == [40, 40, 20]
    assert made.written == IDS[:100]
    assert made.ids.asked == [None, None, "d0039", "d0079"]


def test_documents_that_cannot_be_listed_fail_the_backfill_and_not_the_pillow(
    scene: Callable[..., Scene],
) -> None:
    made = scene()
    made.ids.fail = [AccessError("not for you")]
    ended = made.until_ended(made.backfills.start(KEY, Selection(prefix="d")))
    assert (ended.state, ended.reason) == (
        BackfillState.FAILED,
        "its documents can't be listed: not for you",
    )
    assert made.send(["d0001"]).state is BackfillState.DONE


def test_b8_a_range_that_fails_is_listed_and_sent_again_alone(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "RETRY_SECONDS", 0.0)
    made = scene()
    made.feed.broken["d0050"] = [RetryableError("a copy lags")] * 20
    started = made.backfills.start(KEY, Selection(), IDS[:40], more=True)
    made.backfills.add_ids(started.id, IDS[40:80], last=False)
    made.backfills.add_ids(started.id, IDS[80:120], last=True)
    ended = made.until_ended(started)
    assert ended.state is BackfillState.FAILED
    shown = made.backfills.to_json(ended)
    assert (shown["done"], shown["failed"], shown["reason"]) == (80, 40, "1 of 3 ranges failed")
    (failed,) = shown["failed_ranges"]
    assert failed == {"number": 2, "documents": 40, "reason": "'d0050' can't be read: a copy lags"}

    made.feed.broken.clear()
    made.target.batches.clear()
    ended = made.until_ended(made.backfills.retry(started.id, 2))
    assert ended.state is BackfillState.DONE
    assert made.written == IDS[40:80]


def test_a_source_that_is_away_fails_no_range(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "after", lambda _self, _error: 0.01)
    monkeypatch.setattr(carrier, "RETRY_SECONDS", 0.0)
    made = scene()
    made.feed.broken["d0001"] = [AwayError("refused")] * 5
    assert made.send(["d0001"]).state is BackfillState.DONE
    made.feed.broken["d0001"] = [RetryableError("500")] * 9
    made.feed.well = False
    started = made.backfills.start(KEY, Selection(), ["d0001"])
    made.running.until(lambda: len(made.feed.broken["d0001"]) < 3)
    made.feed.well = True
    assert made.until_ended(started).state is BackfillState.DONE


def test_a_document_that_cannot_be_written_is_a_dead_letter(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.target.poison.add("d0002")
    assert made.send(IDS[:5]).state is BackfillState.DONE
    letters = made.running.settings.dead_letters
    assert set(letters.ids(KEY, "memory")) == {"d0002"}
    assert not letters.unsynced(KEY), "before the range counts as done"


def test_a_crash_repeats_the_range_that_was_being_sent_and_no_other(scene: Callable[..., Scene]) -> None:
    made = scene()
    started = made.backfills.start(KEY, Selection(), IDS[:40], more=True)
    for start in range(40, 200, 40):
        made.backfills.add_ids(started.id, IDS[start : start + 40], last=start == 160)
    made.running.until(lambda: made.backfills.get(started.id).count(RangeState.DONE) >= 80)
    made.restart()
    done = made.backfills.get(started.id).count(RangeState.DONE)
    ended = made.until_ended(started)
    assert (ended.state, ended.count(RangeState.DONE)) == (BackfillState.DONE, 200)
    assert made.written == IDS[done:200]


def test_a_cancelled_backfill_sends_no_more(scene: Callable[..., Scene]) -> None:
    made = scene()
    made.target.delay_seconds = 0.05
    started = made.backfills.start(KEY, Selection(), IDS)
    made.running.until(lambda: made.written)
    cancelled = made.backfills.cancel(started.id)
    made.running.until(lambda: not made.backfills._carriers)
    assert cancelled.state is BackfillState.CANCELLED
    assert made.backfills.get(started.id).state is BackfillState.CANCELLED
    assert len(made.written) <= 2 * GROUP_DOCUMENTS
    with pytest.raises(ConflictError, match="is cancelled"):
        made.backfills.retry(started.id, 1)


def test_a_cancelled_backfill_stays_so_while_its_documents_cannot_be_listed(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backoff, "after", lambda _self, _error: 0.01)
    made = scene()
    made.ids.fail = [AwayError("refused")] * 10_000
    started = made.backfills.start(KEY, Selection(prefix="d"))
    made.running.until(lambda: len(made.ids.asked) > 2)
    made.backfills.cancel(started.id)
    made.running.until(lambda: not made.backfills._carriers)
    assert made.backfills.get(started.id).state is BackfillState.CANCELLED


@pytest.mark.parametrize(
    "ask",
    [
        lambda backfills, id: backfills.add_ids(id, ["b"], last=True),
        lambda backfills, id: backfills.cancel(id),
    ],
)
def test_a_cancel_is_not_undone_by_what_waits_for_its_turn(
    tmp_path: Path, ask: Callable[[Backfills, str], object]
) -> None:
    store = BackfillStore(tmp_path)
    store.attach(SlowReplica({}))
    backfills = Backfills(store, SystemClock())
    started = backfills.start(KEY, Selection(), ["a"], more=True)
    cancelling = gevent.spawn(backfills.cancel, started.id)
    gevent.sleep(0)
    with pytest.raises(ConflictError, match="is cancelled"):
        ask(backfills, started.id)
    assert store.list() == [cancelling.get(timeout=5)]
    assert store.change(started.id, Backfill.begin).state is BackfillState.CANCELLED


def test_ids_that_come_at_once_are_all_kept(tmp_path: Path) -> None:
    store = BackfillStore(tmp_path)
    store.attach(SlowReplica({}))
    backfills = Backfills(store, SystemClock())
    started = backfills.start(KEY, Selection(), ["a"], more=True)
    adding = [gevent.spawn(backfills.add_ids, started.id, [id], last=False) for id in "bc"]
    gevent.joinall(adding, timeout=5, raise_error=True)
    kept = backfills.get(started.id)
    assert sorted(id for n in (1, 2, 3) for id in store.read_ids(kept, n)) == ["a", "b", "c"]


def test_what_is_asked_for_wrongly_is_refused(tmp_path: Path) -> None:
    backfills = Backfills(BackfillStore(tmp_path), SystemClock())
    with pytest.raises(NotFoundError):
        backfills.get("none")
    started = backfills.start(KEY, Selection(), ["a"])
    for refused in (
        lambda: backfills.add_ids(started.id, ["b"], last=True),
        lambda: backfills.retry(started.id, 1),
    ):
        with pytest.raises(ConflictError, match="is waiting"):
            refused()
    backfills.cancel(started.id)
    with pytest.raises(ConflictError, match="has ended"):
        backfills.cancel(started.id)
    for body in ({}, {"prefix": "a", "selector": {}}):
        with pytest.raises(InvalidRequestError, match="exactly one"):
            make_selection(body)


def test_few_wait_and_few_ended_ones_are_kept(tmp_path: Path) -> None:
    backfills = Backfills(BackfillStore(tmp_path), SystemClock())
    for _ in range(MAX_ENDED + 3):
        backfills.cancel(backfills.start(KEY, Selection(prefix="a")).id)
    for _ in range(MAX_WAITING):
        backfills.start(KEY, Selection(prefix="a"))
    with pytest.raises(ConflictError, match="wait or run"):
        backfills.start(KEY, Selection(prefix="a"))
    states = [each.state for each in BackfillStore(tmp_path).list()]
    assert states == [BackfillState.CANCELLED] * MAX_ENDED + [BackfillState.WAITING] * MAX_WAITING


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    store = BackfillStore(tmp_path)
    started = Backfills(store, SystemClock()).start(KEY, Selection(), ["a"])
    (tmp_path / started.id / "backfill.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"backfill\.json"):
        BackfillStore(tmp_path)


def make_lone(folder: Path, run: Callable[[Backfills], None]) -> Backfills:
    """Backfills that this process runs by itself."""
    backfills = Backfills(BackfillStore(folder / "backfills"), SystemClock())
    backfills.run_here = lambda _: run(backfills)
    return backfills


def test_a_backfill_that_comes_while_the_last_one_ends_is_run(tmp_path: Path) -> None:
    def run(backfills: Backfills) -> None:
        for each in backfills.list(KEY):
            if each.state is BackfillState.WAITING:
                backfills.cancel(each.id)
        gevent.sleep(0.1)  # as while a connection is closed

    backfills = make_lone(tmp_path, run)
    backfills.start(KEY, Selection(), ["a"])
    gevent.sleep(0.05)
    second = backfills.start(KEY, Selection(), ["b"])
    wait_until(lambda: backfills.get(second.id).state is BackfillState.CANCELLED)


def test_a_defect_fails_the_backfills_and_leaves_none_waiting(tmp_path: Path) -> None:
    def run(backfills: Backfills) -> None:
        raise KeyError("a defect")

    backfills = make_lone(tmp_path, run)
    started = backfills.start(KEY, Selection(), ["a"])
    wait_until(lambda: backfills.get(started.id).state is BackfillState.FAILED)
    assert "defect" in backfills.get(started.id).reason
