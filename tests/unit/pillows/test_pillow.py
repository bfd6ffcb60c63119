"""The loop as it was promised: its order, its deletes, its checkpoint, and what a version must do."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest

from checkpoints import Seq
from pillows.errors import PermanentError
from pillows.models import Change, Document, revision_number
from pillows.pillow import Pillow
from pillows.progress.checkpointer import CheckpointOptions
from pillows.runtime.status import State
from pillows.stages.filters import Filter, JmespathFilter, PythonFilter
from pillows.stages.transforms import PassThrough, PythonTransform
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan


def pillow_of(filter: Filter, transform, **more) -> Pillow:
    return Pillow(name="cases", outputs=("cases",), filter=filter, transform=transform, **more)


def test_the_four_steps_come_in_their_order(tmp_path, running):
    """As the loop reads: filter, trigger, transform, transport; the checkpoint moves last."""
    seen: list[str] = []

    class Traced(ListFeed):
        def fetch(self, change):
            seen.append(f"trigger {change.id}")
            return super().fetch(change)

    class Target(MemoryTransport):
        def write(self, batch):
            seen.extend(f"transport {document.id}" for document in batch.documents)
            return super().write(batch)

    def keep(change: Change) -> bool:
        seen.append(f"filter {change.id}")
        return change.id != "dropped"

    def transform(doc):
        seen.append(f"transform {doc['_id']}")
        return doc

    feed = Traced([batch("1-a", Change(id="a", revs=("1-a",), leaf_version=1),
                         Change(id="dropped", revs=("1-b",), leaf_version=1), caught_up=True)])  # fmt: skip
    filter = PythonFilter(keep, needs_document=False)
    run = running(
        plan(tmp_path, feed, Target(), pillow=pillow_of(filter, PythonTransform(transform, ("cases",))))
    )  # fmt: skip
    run.until(lambda: run.tail.state is State.LIVE)
    assert run.finish().changes == 2

    # A batch of one may be written while the next change is fetched: each document has its own order.
    told = [each.split() for each in seen]
    assert [step for step, id in told if id == "a"] == ["filter", "trigger", "transform", "transport"]
    assert [step for step, id in told if id == "dropped"] == ["filter", "transport"]


@pytest.mark.parametrize(("keep", "left"), [(False, {"b"}), (True, {"a", "b"})])
def test_a_deletion_removes_the_rows_unless_it_is_ignored(tmp_path, running, keep, left):
    target = MemoryTransport()
    feed = ListFeed(
        [
            batch("1-a", change("a"), change("b")),
            batch("2-b", change("a", "2-x", deleted=True), caught_up=True),
        ]
    )
    pillow = pillow_of(PythonFilter(lambda doc: True), PassThrough(("cases",)), keep_deleted=keep)
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(lambda: run.tail.state is State.LIVE)
    assert run.finish().changes == 3
    assert set(target.live()) == left


def test_a_change_of_type_and_a_bare_delete_remove_the_row(tmp_path, running):
    target = MemoryTransport()
    feed = ListFeed(
        [
            batch("1-a", *(change(id, type="x") for id in ("stays", "moves", "dies"))),
            batch(
                "2-b", change("moves", "2-b", type="y"), change("dies", "2-c", deleted=True), caught_up=True
            ),
        ]
    )
    pillow = pillow_of(PythonFilter(lambda doc: doc["type"] == "x"), PassThrough(("cases",)))
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()
    assert set(target.live()) == {"stays"}


def test_the_checkpoint_is_never_ahead_of_the_acknowledgements_and_moves_while_idle(tmp_path, running, clock):
    target, seen = MemoryTransport(), Recorder()
    feed = ListFeed(
        [batch(f"{n}-a", change(str(n))) for n in range(1, 30)] + [batch("99-idle", caught_up=True)]
    )
    acknowledged = []

    class Watching(MemoryTransport):
        def write(self, batch):
            gevent.sleep(0)
            result = target.write(batch)
            acknowledged.extend(document.id for document in batch.documents)
            return result

    class Checking(Recorder):
        def checkpoint(self, pillow, *, checkpoint, seconds):
            number = int(str(checkpoint.seq).partition("-")[0])
            assert number == 99 or {str(n) for n in range(1, number + 1)} <= set(acknowledged)
            seen.checkpoint(pillow, checkpoint=checkpoint, seconds=seconds)

    policy = CheckpointOptions(max_uncheckpointed=3, interval=1000.0)
    run = running(plan(tmp_path, feed, Watching(), observer=Checking(), checkpoints=policy))
    run.until(lambda: run.tail.state is State.LIVE)
    saved = run.finish()
    assert (saved.seq, saved.changes) == (Seq.of("99-idle"), 29)
    assert seen.of("checkpoint")


def test_killed_in_the_middle_of_a_write_and_restarted_nothing_is_missing(tmp_path, running):
    """Duplicates are allowed, and refused by the write version."""
    target = MemoryTransport()

    class Half(MemoryTransport):
        def write(self, batch):
            half = batch.only([document.id for document in batch.documents[::2]])
            result = target.write(half)
            if len(target.batches) == 1:
                gevent.sleep(30)
            return target.write(batch) or result

        def open(self):
            return target.open()

        def acquire(self, checkpoint):
            target.acquire(checkpoint)

    feed = ListFeed([batch(f"{n}-a", *(change(f"{n}-{i}") for i in range(10))) for n in range(5)])
    feed.queue.append(batch("9-z", caught_up=True))
    feed.sums = {f"{n}-{i}": 1 for n in range(5) for i in range(10)}
    made = plan(tmp_path, feed, Half())
    killed = running(made)
    killed.until(lambda: target.batches)
    killed.greenlet.kill()
    assert 0 < len(target.live()) < 50

    again = running(made)
    again.until(lambda: again.tail.state is State.LIVE)
    again.finish()
    assert len(target.live()) == 50


#: A document with conflicts, state after state: its leaves, live or deleted. The winner is the live leaf
#: of the highest generation, and of these the one with the greatest name.
STATES = [
    {"1-a": True},
    {"2-b": True},
    {"2-b": True, "2-c": True},
    {"2-c": True, "3-d": True},
    {"2-c": True, "4-e": True},
    {"2-c": True, "5-f": False},  # the winner is deleted: generation 2 wins, after 4
    {"2-c": True, "5-f": False, "2-b": True},  # a losing leaf comes: the same winner again
    {"3-g": False, "5-f": False, "2-b": True},
    {"3-g": False, "5-f": False, "3-h": False},  # the last live leaf goes: the winner is a deletion
    {"3-g": False, "6-i": True, "3-h": False},
]


def winner(leaves: dict[str, bool]) -> str:
    return max(leaves, key=lambda rev: (leaves[rev], revision_number(rev), rev))


def played(tmp_path, running, version: Callable[[dict[str, bool]], int]) -> list[str | None]:
    """Returns the content of the target after each state, if documents have these versions."""
    target, feed, held = MemoryTransport(), ListFeed(), []
    for number, leaves in enumerate(STATES):
        rev = winner(leaves)
        state = change(
            "doc", rev, *(other for other in leaves if other != rev), deleted=not leaves[rev], at=rev
        )
        state.leaf_version = version(leaves)
        feed.queue.append(batch(f"{number}-a", state, caught_up=True))
        feed.sums = {"doc": 10**6}  # higher than what any target holds: no document counts as regressed
        folder = tmp_path / str(number)
        run = running(plan(folder, ListFeed(feed.queue[number:]), target))
        run.settings.services.make_feed().sums = feed.sums
        run.until(lambda run=run: run.tail.state is State.LIVE)
        run.finish()
        target.target["epoch"] = None  # another state directory, the same epoch
        held.append(target.live().get("doc", {}).get("at"))
    return held


def test_with_the_sum_of_all_generations_the_target_holds_the_winner_after_each_state(tmp_path, running):
    expected = [winner(leaves) if leaves[winner(leaves)] else None for leaves in STATES]
    assert played(tmp_path, running, lambda leaves: sum(map(revision_number, leaves))) == expected


def test_with_the_winners_generation_it_would_not(tmp_path, running):
    """Keeps the test above honest."""
    expected = [winner(leaves) if leaves[winner(leaves)] else None for leaves in STATES]
    assert played(tmp_path, running, lambda leaves: revision_number(winner(leaves))) != expected


def test_a_position_is_handed_back_as_it_came(tmp_path, running):
    token = [7, "g1AAAACbeJzLYWBgYMpgTmEQTM4vTc5ISXIwNDLXMwBCwxygFFMiQ5L8"]
    feed = ListFeed([batch(token, change("a"), caught_up=True)])
    made = plan(tmp_path, feed, MemoryTransport())
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)
    assert run.finish().seq.json == Seq.of(token).json
    again = running(made)
    again.until(lambda: len(feed.asked) == 2)
    assert feed.asked[1] == Seq.of(token)
    with pytest.raises(TypeError):
        _ = feed.asked[0] < feed.asked[1]


def test_a_filter_that_reads_the_document_gets_it_even_if_the_feed_left_it_out(tmp_path, running):
    """With worker processes the feed leaves documents to them, and may have read ahead when they end."""

    class Sources(ListFeed):
        def fetch(self, change):
            found = super().fetch(change)
            if change.id == "gone":
                return Document(id="gone", rev="2-b", leaf_version=2, deleted=True, raw=None)
            return found

    ids = ("kept", "dropped", "gone")
    feed = Sources(
        [batch("1-a", *(Change(id=id, revs=("1-a",), leaf_version=1) for id in ids), caught_up=True)]
    )
    target = MemoryTransport()
    pillow = pillow_of(
        JmespathFilter("doc.fetched && doc._id != 'dropped'"), PythonTransform(lambda doc: doc, ("cases",))
    )
    run = running(plan(tmp_path, feed, target, pillow=pillow))
    run.until(lambda: run.tail.state is State.LIVE)
    assert run.finish().changes == 3
    written = {each.id: each for made in target.batches for each in made.documents}
    assert {id: each.has_rows for id, each in written.items()} == {
        "kept": True,
        "dropped": False,
        "gone": False,
    }
    assert written["gone"].leaf_version == 2
    assert sorted(feed.fetched) == sorted(ids), "each is read once"


def test_a_document_that_is_not_there_is_never_taken_for_an_empty_one():
    with pytest.raises(PermanentError, match="did not come with its change"):
        _ = Change(id="a", revs=("1-a",), leaf_version=1).doc
    assert Change(id="a", revs=("2-a",), leaf_version=2, deleted=True).doc == {}


def test_a_fetched_document_weighs_what_it_weighs(tmp_path, running):
    """A bound in bytes that counted ids alone would hold a thousand large documents at once."""

    class Large(ListFeed):
        def fetch(self, change):
            found = super().fetch(change)
            body = {**found.doc, "text": "x" * 100_000}
            return Document(id=found.id, rev=found.rev, leaf_version=1, deleted=False, raw=_raw(body))

    from pillows.delivery.batcher import BatchOptions

    class Slow(MemoryTransport):
        def write(self, batch):
            while len(feed.fetched) < 4:  # one is written, two wait, and there is no room for another
                gevent.sleep(0)
            return super().write(batch)

    target = Slow()
    changes = [Change(id=str(n), revs=("1-a",), leaf_version=1) for n in range(20)]
    feed = Large([batch("1-a", *changes, caught_up=True)])
    run = running(plan(tmp_path, feed, target, batch=BatchOptions(max_bytes=250_000)))
    run.until(lambda: run.tail.state is State.LIVE)
    run.finish()
    assert max(len(each.documents) for each in target.batches) == 2


def _raw(body):
    import msgspec

    return msgspec.Raw(msgspec.json.encode(body))


@pytest.mark.parametrize("generation", [2**40, 2**60 - 1, 2**63])
@pytest.mark.parametrize("deleted", [False, True])
def test_b4_a_document_of_a_huge_revision_is_a_dead_letter_and_raises_no_epoch(
    tmp_path, running, generation, deleted
):
    target = MemoryTransport()
    odd = change("odd", f"{generation}-a", deleted=deleted)
    feed = ListFeed([batch("1-a", change("a"), odd, change("b"), caught_up=True)])
    made = plan(
        tmp_path, feed, target, pillow=pillow_of(PythonFilter(lambda doc: True), PassThrough(("cases",)))
    )
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)
    (letter,) = made.dead_letters.list(KEY)
    assert letter.id == "odd"
    assert str(generation) in letter.error
    assert run.finish().epoch == 1
    assert set(target.live()) == {"a", "b"}
