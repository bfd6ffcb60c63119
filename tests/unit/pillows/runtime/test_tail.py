"""A tail, run with a feed from a list and targets in memory."""

from __future__ import annotations

import dataclasses

import pytest
from gevent.event import Event
from msgspec.structs import replace

from checkpoints import Checkpoint, ConfigDigest, Seq
from pillows.delivery.batcher import BatchOptions
from pillows.errors import (
    ConfigError,
    FatalError,
    FencedError,
    RetryableError,
    SourceChangedError,
    StateLostError,
)
from pillows.feed.base import SIGN_OF_LIFE, TICK_SECONDS, DatabaseIdentity
from pillows.models import Change, Document, write_version
from pillows.observer import Observer
from pillows.pillow import Pillow
from pillows.progress.checkpointer import CheckpointOptions
from pillows.runtime.status import State
from pillows.stages.filters import KeepAll, PythonFilter
from pillows.stages.transforms import ChunkedTransform, PythonTransform
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan
from tests.support.waiting import let_others_run


def test_changes_arrive_in_every_target_and_the_checkpoint_follows(tmp_path, running):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    feed = ListFeed(
        [batch("1-a", change("a", n=1), change("b", n=2)), batch("2-b", change("c", n=3), caught_up=True)]
    )
    run = running(plan(tmp_path, feed, one, two))
    run.until(lambda: run.tail.state is State.LIVE)

    checkpoint = run.finish()

    assert Seq.of("2-b") == checkpoint.seq
    assert checkpoint.changes == 3
    assert {"a", "b", "c"} == set(one.live()) == set(two.live())
    assert checkpoint.pass_done
    assert State.STOPPED is run.tail.state
    assert (one.closed, feed.closed) == (1, 1)


def test_an_idle_feed_moves_the_checkpoint(tmp_path, running):
    feed = ListFeed([batch("1-a", change("a")), batch("9-z")])
    run = running(plan(tmp_path, feed, MemoryTransport()))
    run.until(lambda: feed.asked)

    assert Seq.of("9-z") == run.finish().seq


def test_a_restart_reads_on_from_the_checkpoint(tmp_path, running):
    target = MemoryTransport()
    feed = ListFeed([batch("1-a", change("a"))])
    first = plan(tmp_path, feed, target)
    run = running(first)
    run.until(target.live)
    run.finish()

    again = running(dataclasses.replace(first))
    again.until(lambda: len(feed.asked) == 2)
    again.finish()

    assert [Seq.BEGINNING, Seq.of("1-a")] == feed.asked


def test_a_document_that_leaves_the_set_loses_its_rows(tmp_path, running):
    """Filtered out, dropped by the transform, deleted: all the same."""
    target = MemoryTransport()
    feed = ListFeed(
        [
            batch("1-a", *(change(id, "1-a", keep=True) for id in "abcd")),
            batch(
                "2-b",
                change("a", "2-b", keep=False),
                change("b", "2-b", drop=True),
                change("c", "2-b", deleted=True),
            ),
        ]
    )
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda doc: doc.get("keep", True)),
        transform=PythonTransform(lambda doc: None if doc.get("drop") else {"id": doc["_id"]}, ("cases",)),
    )
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(lambda: len(target.batches) and set(target.live()) == {"d"})

    assert Seq.of("2-b") == run.finish().seq
    assert target.live() == {"d": {"id": "d"}}


def test_a_chunk_is_asked_as_soon_as_the_feed_has_nothing_more(tmp_path, running):
    """Under load it is bounded; an idle feed waits for nobody. Bad documents fall out alone."""
    chunks = []

    def function(docs):
        chunks.append(len(docs))
        return [{"n": 1 // doc["n"]} for doc in docs]

    target = MemoryTransport()
    feed = ListFeed(
        [
            batch("1-a", *(change(str(n), n=1) for n in range(9)), change("bad", n=0)),
            batch("2-b", change("gone", deleted=True), change("last", n=1), caught_up=True),
        ]
    )
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=KeepAll(),
        transform=ChunkedTransform(function, ("cases",), chunk=4),
    )
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()

    assert max(chunks) == 4
    assert set(target.live()) == {*map(str, range(9)), "last"}
    (dead_letter,) = run.settings.dead_letters.list(KEY)
    assert (dead_letter.id, dead_letter.stage, dead_letter.error[:17]) == (
        "bad",
        "transform",
        "ZeroDivisionError",
    )


def test_a_document_that_was_deleted_before_it_was_fetched_is_deleted(tmp_path, running):
    class Vanished(ListFeed):
        def fetch(self, change):
            return Document(id=change.id, rev="2-b", leaf_version=2, deleted=True, raw=None)

    target = MemoryTransport()
    feed = Vanished([batch("1-a", Change(id="a", revs=("1-a",), leaf_version=1), caught_up=True)])
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=KeepAll(),
        transform=PythonTransform(lambda doc: {"id": doc["_id"]}, ("cases",)),
    )
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()

    assert target.target["rows"] == {"a": (write_version(1, 2), {})}


def test_only_the_failing_transport_is_tried_again(tmp_path, running, clock):
    good, bad = MemoryTransport("good"), MemoryTransport("bad")
    bad.fail = [RetryableError("away"), RetryableError("away")]
    seen = Recorder()
    feed = ListFeed([batch("1-a", change("a"))])
    run = running(plan(tmp_path, feed, good, bad, clock=clock, observer=seen))
    run.until(bad.live)

    assert Seq.of("1-a") == run.finish().seq
    assert (len(good.batches), len(bad.batches)) == (1, 3)
    assert [facts["where"] for facts in seen.of("retry")] == ["bad", "bad"]
    assert State.BACKING_OFF in [facts["state"] for facts in seen.of("state")]


def test_a_slow_transport_holds_back_the_feed_and_so_the_others(tmp_path, running):
    """No transport runs ahead of another one by more than the batch that grows."""
    slow, quick = MemoryTransport("slow"), MemoryTransport("quick")
    go = Event()
    write = slow.write
    slow.write = lambda batch: (go.wait(60), write(batch))[1]
    handed_over = []

    class Counting(ListFeed):
        def batches(self, since, identity, stop):
            for each in super().batches(since, identity, stop):
                handed_over.append(each)
                yield each

    feed = Counting([batch(f"{n}-a", change(str(n))) for n in range(100)])
    run = running(plan(tmp_path, feed, slow, quick, batch=BatchOptions(max_docs=10)))
    run.until(lambda: quick.batches and len(handed_over) >= 21)
    let_others_run()

    # A batch in the writer's hands, one that is full, and the change that waits.
    assert (len(quick.batches), len(handed_over)) == (1, 21)
    go.set()
    run.until(lambda: len(slow.live()) == 100)
    run.finish()


def test_a_document_that_is_dead_in_one_transport_only_is_told(tmp_path, running):
    one, two = MemoryTransport("one"), MemoryTransport("two")
    two.poison = {"p"}
    seen = Recorder()
    feed = ListFeed([batch("1-a", change("p"), change("q"), caught_up=True)])
    run = running(plan(tmp_path, feed, one, two, observer=seen))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()

    told = [facts["details"] for facts in seen.of("warning") if facts["event"] == "transports.diverged"]
    assert told == [{"id": "p", "missing_in": "two"}]
    assert set(one.live()) == {"p", "q"}


def test_every_transport_is_closed_even_if_one_cannot_be(tmp_path, running):
    class Stuck(MemoryTransport):
        def close(self):
            super().close()
            raise OSError("stuck")

    one, stuck, three = MemoryTransport("one"), Stuck("stuck"), MemoryTransport("three")
    feed = ListFeed([batch("1-a", change("a"), caught_up=True)])
    run = running(plan(tmp_path, feed, one, stuck, three))
    run.until(lambda: run.tail.state is State.LIVE)
    with pytest.raises(OSError, match="stuck"):
        run.finish()
    assert (one.closed, stuck.closed, three.closed, feed.closed) == (1, 1, 1, 1)


def test_a_busy_item_is_written_again_alone(tmp_path, running, clock):
    target = MemoryTransport()
    target.busy = [{"a"}]
    feed = ListFeed([batch("1-a", change("a"), change("b"))])
    run = running(plan(tmp_path, feed, target, clock=clock))
    run.until(lambda: len(target.live()) == 2)
    run.finish()

    assert [[d.id for d in b.documents] for b in target.batches] == [["a", "b"], ["a"]]


def test_the_checkpoint_stays_before_an_unacknowledged_batch(tmp_path, running):
    """A stop while the target is away leaves the batch for the next start."""
    target = MemoryTransport()
    target.fail = [RetryableError("away")] * 1000
    run = running(plan(tmp_path, ListFeed([batch("1-a", change("a"))]), target))
    run.until(lambda: run.tail.state is State.BACKING_OFF)

    assert run.finish().seq == Seq.BEGINNING


def test_a_document_that_fails_becomes_a_dead_letter_and_the_feed_goes_on(tmp_path, running):
    target = MemoryTransport()
    target.poison = {"p"}
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda doc: True),
        transform=PythonTransform(lambda doc: {"n": 1 // doc["n"]}, ("cases",)),
    )
    feed = ListFeed([batch("1-a", change("bad", n=0), change("p", n=1), change("good", n=1))])
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(target.live)
    run.until(lambda: run.settings.dead_letters.count(KEY) == 2)

    dead_letters = {dead_letter.id: dead_letter for dead_letter in run.settings.dead_letters.list(KEY)}
    assert (dead_letters["bad"].stage, dead_letters["bad"].transport) == ("transform", "-")
    assert "ZeroDivisionError" in dead_letters["bad"].error
    assert (dead_letters["p"].stage, dead_letters["p"].transport, dead_letters["p"].error) == (
        "transport",
        "memory",
        "poison",
    )
    assert Seq.of("1-a") == run.finish().seq
    assert target.live() == {"good": {"n": 1}}


def test_a_later_good_version_clears_the_letter(tmp_path, running):
    target = MemoryTransport()
    target.poison = {"p"}
    feed = ListFeed([batch("1-a", change("p", "1-a"))])
    first = plan(tmp_path, feed, target)
    run = running(first)
    run.until(lambda: first.dead_letters.count(KEY))
    run.finish()

    target.poison = set()
    feed.queue.append(batch("2-b", change("p", "2-b")))
    again = running(first)
    again.until(target.live)
    again.finish()

    assert first.dead_letters.count(KEY) == 0


def test_too_many_dead_letters_in_a_row_are_a_wrong_configuration(tmp_path, running):
    target = MemoryTransport()
    target.poison = {str(n) for n in range(20)}
    feed = ListFeed([batch("1-a", *(change(str(n)) for n in range(20)))])
    run = running(plan(tmp_path, feed, target, max_consecutive=10))

    with pytest.raises(FatalError, match="in a row"):
        run.greenlet.get(timeout=60)


def test_a_refused_replay_is_believed_when_the_source_has_it(tmp_path, running):
    target = MemoryTransport(
        target={"rows": {"a": (write_version(1, 5), {"cases": ({"n": 5},)})}, "epoch": None}
    )
    feed = ListFeed([batch("1-a", change("a", "3-a"))])
    feed.sums = {"a": 5}
    run = running(plan(tmp_path, feed, target))
    run.until(lambda: target.batches)

    assert run.finish().epoch == 1
    assert target.live() == {"a": {"n": 5}}


def test_a_document_that_went_back_is_written_under_a_raised_epoch(tmp_path, running, clock):
    """Purged and created anew: its generations start again, and the target would keep the old state."""
    target = MemoryTransport(
        target={"rows": {"a": (write_version(1, 5), {"cases": ({"n": 5},)})}, "epoch": None}
    )
    feed = ListFeed([batch("1-a", change("a", "1-a", n=1))])
    feed.sums = {"a": 1}
    run = running(plan(tmp_path, feed, target, clock=clock))
    run.until(lambda: target.live()["a"]["n"] == 1)

    checkpoint = run.finish()
    assert 2 == checkpoint.epoch == target.target["epoch"]
    assert write_version(2, 1) == target.target["rows"]["a"][0]


def read_before_the_purge(tmp_path, running):
    """A target that has the one document of a source from which nothing was purged yet."""
    target = MemoryTransport()
    feed = ListFeed([batch("1-a", change("a", "1-a", n="old"))], identity=purged("0-p"))
    run = running(plan(tmp_path, feed, target))
    run.until(target.live)
    run.finish()
    run.close_stores()
    return target


def test_an_equal_version_is_written_again_where_the_source_was_purged_since(tmp_path, running):
    """Created anew at generation 1, where it was at generation 1 before."""
    target = read_before_the_purge(tmp_path, running)

    feed = ListFeed([batch("1-a"), batch("2-b", change("a", "1-b", n="new"))], identity=purged("1-p"))
    run = running(plan(tmp_path, feed, target))
    run.until(lambda: target.live()["a"]["n"] == "new")
    checkpoint = run.finish()
    assert (checkpoint.epoch, checkpoint.purge_seq) == (2, "0-p")  # the feed has told nothing yet


def test_a8_a_replay_after_a_split_shard_is_not_reported_as_regressed(tmp_path, running):
    """Splitting a shard changes the purge position although nothing was purged.

    pillowd once reported replayed documents as regressed because of that.
    """
    target = read_before_the_purge(tmp_path, running)
    rewinds = []

    class Listener(Observer):
        def rewind(self, tail, *, kind, reason):
            rewinds.append(reason)

    feed = ListFeed([batch("1-a"), batch("2-b", change("a", "1-a", n="old"))], identity=purged("8-p"))
    run = running(plan(tmp_path, feed, target, observer=Listener()))
    run.until(lambda: run.tail.status().changes == 2)
    run.finish()
    assert target.live()["a"]["n"] == "old"
    assert rewinds == []


def test_an_equal_version_is_a_replay_where_nothing_was_purged(tmp_path, running):
    target = read_before_the_purge(tmp_path, running)

    feed = ListFeed([batch("1-a"), batch("2-b", change("a", "1-a", n="old"))], identity=purged("0-p"))
    run = running(plan(tmp_path, feed, target))
    run.until(lambda: run.tail.status().changes == 2)
    assert run.finish().epoch == 1


def test_a_document_that_went_back_within_one_batch_ends_as_it_came_last(tmp_path, running, clock):
    """Its older state has the higher version, and is all that the targets are given at first."""
    target = MemoryTransport()
    feed = ListFeed([batch("1-a", change("a", "5-a", n="old"), change("a", "1-b", n="new"))])
    feed.sums = {"a": 1}
    run = running(plan(tmp_path, feed, target, clock=clock))
    run.until(lambda: target.live().get("a", {}).get("n") == "new")
    assert run.finish().epoch == 2


def purged(purge_seq: str) -> DatabaseIdentity:
    return DatabaseIdentity(server_uuid="u", instance_start_time="1700000000", purge_seq=purge_seq)


def test_a_later_epoch_in_the_target_fences_us_out(tmp_path, running):
    target = MemoryTransport(target={"rows": {"a": (write_version(7, 1), {})}, "epoch": None})
    run = running(plan(tmp_path, ListFeed([batch("1-a", change("a"))]), target))

    with pytest.raises(FencedError, match="epoch 7"):
        run.greenlet.get(timeout=60)


def test_a_lost_state_directory_is_refused_with_the_remedies(tmp_path, running):
    target = MemoryTransport(target={"rows": {}, "epoch": 3})
    run = running(plan(tmp_path, ListFeed(), target))

    with pytest.raises(StateLostError, match=r"(?s)epoch 3.*checkpoint import.*checkpoint reset"):
        run.greenlet.get(timeout=60)


def test_after_a_reset_the_pass_is_above_every_epoch_and_sweeps_what_is_gone(tmp_path, running):
    rows = {
        "a": (write_version(3, 9), {"cases": ({"n": "old"},)}),
        "ghost": (write_version(3, 1), {"cases": ({},)}),
    }
    target = MemoryTransport(target={"rows": rows, "epoch": 3})
    feed = ListFeed([batch("1-a", change("a", "1-a", n="new"), caught_up=True)])
    made = plan(tmp_path, feed, target)
    made.store.edit(KEY, Checkpoint.reset)
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)

    checkpoint = run.finish()

    assert (checkpoint.epoch, checkpoint.pass_epoch, checkpoint.pass_done) == (4, 4, True)
    assert {"a"} == set(target.live())
    assert target.live()["a"]["n"] == "new"


def test_an_operators_reset_is_noticed_while_running(tmp_path, running):
    target = MemoryTransport()
    feed = ListFeed([batch("1-a", change("a"), caught_up=True)])
    made = plan(tmp_path, feed, target, checkpoints=CheckpointOptions(interval=0.02))
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)

    made.store.edit(KEY, Checkpoint.reset)
    run.until(lambda: feed.asked == [Seq.BEGINNING, Seq.BEGINNING] and run.tail.state is State.LIVE)

    assert run.finish().epoch == 2


@pytest.mark.parametrize("what", ["source", "outputs"])
def test_a_changed_source_or_output_is_refused(tmp_path, running, what):
    target = MemoryTransport()
    first = plan(tmp_path, ListFeed([batch("1-a", change("a"))]), target)
    run = running(first)
    run.until(target.live)
    run.finish()

    if what == "outputs":
        changed = first
        target.outputs_digest = lambda: "other"
    else:
        changed = first.replaced(digest=ConfigDigest(source="other", pipeline="p"))
    with pytest.raises(ConfigError, match=rf"(?s){what}.*checkpoint reset"):
        running(changed).greenlet.get(timeout=60)


def test_a_changed_pipeline_goes_on_with_a_warning(tmp_path, running):
    target, seen = MemoryTransport(), Recorder()
    first = plan(tmp_path, ListFeed([batch("1-a", change("a"))]), target, observer=seen)
    run = running(first)
    run.until(target.live)
    run.finish()

    again = running(first.replaced(digest=ConfigDigest(source="s", pipeline="other")))
    again.until(lambda: seen.of("warning"))

    assert again.finish().pipeline_changed_at is not None
    assert "pipeline.changed" in [facts["event"] for facts in seen.of("warning")]


def test_how_much_is_behind_is_asked_for_while_the_feed_does_not_tell(tmp_path, running):
    """While a target is away nothing is read, and the feed's last number grows old."""

    asked_for = []
    clock = FakeClock()

    class Behind(ListFeed):
        def batches(self, since, identity, stop):
            yield self.queue[0]
            while not clock.wait(stop, TICK_SECONDS):
                yield SIGN_OF_LIFE

        def pending(self, since):
            asked_for.append(str(since))
            if len(asked_for) == 1:
                raise RetryableError("away")
            return 4711

    feed = Behind([batch("1-a", change("a"), caught_up=True)])
    run = running(plan(tmp_path, feed, MemoryTransport(), clock=clock))
    run.until(lambda: run.tail.status().pending == 4711)
    assert set(asked_for) == {"1-a"}
    run.finish()


def test_a_recreated_source_is_refused_or_reloaded(tmp_path, running):
    class Recreated(ListFeed):
        def batches(self, since, identity, stop):
            if identity.instance_start_time != self.identity.instance_start_time:
                raise SourceChangedError("recreated", remedy="checkpoint reset")
            yield from super().batches(since, identity, stop)

    target = MemoryTransport()
    feed = Recreated([batch("1-a", change("old"), caught_up=True)])
    first = plan(tmp_path, feed, target)
    run = running(first)
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()

    feed.identity = replace(feed.identity, instance_start_time="1800000000")
    feed.queue = [batch("1-z", change("new"), caught_up=True)]
    with pytest.raises(SourceChangedError):
        running(first).greenlet.get(timeout=60)

    reload = running(first.replaced(reload_recreated=True))
    reload.until(lambda: set(target.live()) == {"new"})
    reload.finish()


def test_a_target_that_lost_everything_is_refused(tmp_path, running):
    first = plan(tmp_path, ListFeed([batch("1-a", change("a"))]), MemoryTransport())
    run = running(first)
    run.until(lambda: first.store.get(KEY) and run.tail.status().changes)
    run.finish()

    emptied = first.replaced(make_transports=lambda: [MemoryTransport()])
    with pytest.raises(StateLostError, match="knows nothing"):
        running(emptied).greenlet.get(timeout=60)


def test_a_long_run_of_what_was_written_before_is_told_once(tmp_path, running, monkeypatch):
    monkeypatch.setattr("pillows.delivery.batch_delivery.REWIND_MIN_DOCUMENTS", 20)
    documents = [change(f"d{n}") for n in range(10)]
    written = {d.id: (write_version(1, 1), {"cases": ({},)}) for d in documents}
    target = MemoryTransport(target={"rows": written, "epoch": None})
    feed = ListFeed([batch(f"{n}-a", *documents) for n in range(1, 6)])
    feed.sums = {d.id: 1 for d in documents}
    seen = Recorder()
    made = plan(tmp_path, feed, target, observer=seen, batch=BatchOptions(max_docs=10))
    run = running(made)
    run.until(lambda: run.tail.status().changes == 50)
    run.finish()

    assert ["documents in a row" in facts["reason"] for facts in seen.of("rewind")] == [True]


def test_its_status_says_how_late_it_is_how_fast_it_goes_and_when_it_is_done(tmp_path, running):
    clock = FakeClock(auto=False)
    target = MemoryTransport("target")
    first = replace(batch(2, change("a"), change("b")), pending=60)
    feed = ListFeed([first])
    run = running(plan(tmp_path, feed, target, clock=clock, batch=BatchOptions(max_docs=2)))
    run.until(lambda: run.tail.status().changes == 2)
    clock.advance(2)
    status = run.tail.status()
    assert (status.lag_seconds, status.changes_per_second) == (None, 1), "not been at the head"
    assert (status.pending, status.seconds_to_go) == (60, 60)
