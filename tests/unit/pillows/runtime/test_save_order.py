"""Dead letters are on disk before checkpoints that pass them, wherever a crash interrupts the writes."""

from __future__ import annotations

import shutil
from contextlib import closing

import pytest
from gevent.event import Event

from checkpoints import Checkpoint, Seq
from checkpoints.files.directory import Directory
from pillows.dead_letters.dead_letter import make_dead_letter
from pillows.dead_letters.store import DeadLetters
from pillows.errors import FencedError, RetryableError, StateLostError
from pillows.models import Change, write_version
from pillows.pillow import Pillow
from pillows.progress.checkpointer import CheckpointOptions
from pillows.runtime.status import State
from pillows.stages.filters import KeepAll, PythonFilter
from pillows.stages.transforms import PassThrough, PythonTransform
from tests.support.failing_disk import FailingDisk
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.tails import plan


def failing_on(bad):
    def transform(document):
        if document["_id"] == bad:
            raise ValueError("no")
        return document

    return Pillow(
        name="cases", outputs=("cases",), filter=KeepAll(), transform=PythonTransform(transform, ("cases",))
    )


def test_a_target_never_saves_a_checkpoint_past_a_failure_that_is_in_no_letter_yet(
    tmp_path,
    running,
    monkeypatch,
):
    """The process dies between the target's commit and the dead letter."""
    target = MemoryTransport(transactional=True)
    feed = ListFeed([batch("1-a", change("good"), change("bad"))])
    made = plan(tmp_path, feed, target, pillow=failing_on("bad"))

    def die(*_):
        raise SystemError("killed")

    monkeypatch.setattr(made.dead_letters, "add", die)
    run = running(made)
    with pytest.raises(SystemError):
        run.greenlet.get(timeout=60)

    assert target.target["checkpoint"].seq == Seq.BEGINNING


@pytest.mark.parametrize("transactional", [False, True])
def test_a_letter_is_on_disk_before_any_checkpoint_passes_its_change(
    tmp_path, running, monkeypatch, transactional
):
    """Many batches share one sync of dead letters, and only the checkpoint waits for it."""
    target = MemoryTransport(transactional=transactional)
    feed = ListFeed([batch(f"{n}-a", change(f"good{n}"), change("bad")) for n in range(1, 20)])
    made = plan(tmp_path, feed, target, pillow=failing_on("bad"))
    unsafe = []

    def look(move):
        def looking(*args):
            unsafe.append(made.dead_letters.unsynced(KEY) and args[-1].changes > 0)
            return move(*args)

        return looking

    def write(self, batch):
        if batch.checkpoint is not None and batch.checkpoint.changes:
            unsafe.append(made.dead_letters.unsynced(KEY))
        return known(self, batch)

    known = MemoryTransport.write
    monkeypatch.setattr(MemoryTransport, "write", write)
    monkeypatch.setattr(made.store, "save", look(made.store.save))
    run = running(made)
    run.until(lambda: len(target.live()) == 19)
    saved = run.finish()

    assert saved.changes == 38
    assert unsafe
    assert not any(unsafe)
    assert not made.dead_letters.unsynced(KEY)


def test_no_checkpoint_in_a_target_passes_the_version_that_is_still_to_clear_a_letter(
    tmp_path, running, monkeypatch
):
    """The process dies between the target's commit and the clearing: it is seen again, and clears then."""
    target = MemoryTransport(transactional=True)
    target.poison = {"bad"}
    feed = ListFeed([batch("1-a", change("bad"))])
    made = plan(tmp_path, feed, target)
    first = running(made)
    first.until(lambda: made.dead_letters.count(KEY))
    first.finish()
    target.poison = set()
    feed.queue = [batch("1-a", change("bad")), batch("2-b", change("bad", "2-b"), change("good"))]

    def die(*_):
        raise SystemError("killed")

    with monkeypatch.context() as killed:
        killed.setattr(made.dead_letters, "clear", die)
        with pytest.raises(SystemError):
            running(made).greenlet.get(timeout=60)
    assert target.target["checkpoint"].seq == Seq.of("1-a")

    again = running(made)
    again.until(lambda: not made.dead_letters.count(KEY))
    assert again.finish().seq == Seq.of("2-b")


def test_what_ends_the_writer_is_told_though_the_reader_is_stopped_while_it_tries_again(tmp_path, running):
    """Otherwise the tail would begin anew at once, and take the fence back, for ever."""

    class Fenced(MemoryTransport):
        def write(self, batch):
            assert trying.wait(60)
            raise FencedError

    class Away(ListFeed):
        def fetch(self, change):
            trying.set()
            raise RetryableError("away")

    trying = Event()
    bodiless = Change(id="b", revs=("1-a",), leaf_version=1)
    run = running(plan(tmp_path, Away([batch("1-a", change("a")), batch("2-b", bodiless)]), Fenced()))

    with pytest.raises(FencedError):
        run.greenlet.get(timeout=60)


def test_after_an_old_state_directory_was_put_back_a_reset_is_enough(tmp_path, running):
    """The remedy that the refusal names, although the target counts more edits."""
    target = MemoryTransport(transactional=True)
    target.target |= {"epoch": 7, "checkpoint": Checkpoint(seq=Seq.of("9-z"), edits=5, epoch=7)}
    made = plan(tmp_path, ListFeed([batch("1-a", change("a"), caught_up=True)]), target)
    made.store.edit(KEY, lambda _: Checkpoint(seq=Seq.of("3-c"), epoch=2))
    with pytest.raises(StateLostError):
        running(made).greenlet.get(timeout=60)

    made.store.edit(KEY, Checkpoint.reset)
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)

    assert {"a"} == set(target.live())
    assert run.finish() == target.target["checkpoint"]


@pytest.mark.parametrize("kept", ["keep_deleted", "keep_departed"])
def test_the_end_of_a_pass_takes_nothing_of_what_is_to_be_kept(tmp_path, running, kept):
    """A deleted, or departed, document comes without rows in the new pass: it must not be swept for it."""
    target = MemoryTransport()
    deleted = change("gone", "2-b", deleted=kept == "keep_deleted", left=True)
    feed = ListFeed([batch("1-a", change("gone"), change("here")), batch("2-b", deleted, caught_up=True)])
    pillow = Pillow(
        name="cases",
        outputs=("cases",),
        filter=PythonFilter(lambda document: "left" not in document),
        transform=PassThrough(("cases",)),
        keep_deleted=kept == "keep_deleted",
        keep_departed=kept == "keep_departed",
    )
    made = plan(tmp_path, feed, target, pillow=pillow)
    first = running(made)
    first.until(lambda: first.tail.state is State.LIVE)
    first.finish()
    feed.queue = [batch("2-b", change("here"), deleted, caught_up=True)]  # as CouchDB tells it then

    made.store.edit(KEY, Checkpoint.reset)
    again = running(made)
    again.until(lambda: again.tail.state is State.LIVE)

    assert again.finish().pass_done
    assert {"gone", "here"} == set(target.live())


@pytest.mark.parametrize("when", ["open", "write", "finish_pass"])
def test_a_full_disk_is_waited_for_and_no_crash(tmp_path, running, clock, monkeypatch, when):
    """The disk fills at the start, at a dead letter, at a raised epoch, or at the end of a pass."""
    disk = FailingDisk(monkeypatch)

    class Filling(MemoryTransport):
        def __getattribute__(self, name):
            if name == when and not self.__dict__.setdefault("full", False):
                self.full, disk.refusals = True, 5
            return super().__getattribute__(name)

    target = Filling(target={"rows": {"back": (write_version(1, 7), {})}, "epoch": 1})
    target.poison = {"bad"}
    seen = Recorder()
    feed = ListFeed([batch("1-a", change("bad"), change("back", "2-b"), caught_up=True)])
    feed.sums = {"back": 2}
    made = plan(tmp_path, feed, target, clock=clock, observer=seen)
    made.store.edit(KEY, lambda _: Checkpoint(seq=Seq.BEGINNING))
    run = running(made)
    run.until(lambda: run.tail.state is State.LIVE)

    checkpoint = run.finish()

    assert (Seq.of("1-a"), 2, True) == (checkpoint.seq, checkpoint.epoch, checkpoint.pass_done)
    assert made.dead_letters.count(KEY) == 1
    assert disk.refusals == 0
    assert {facts["where"] for facts in seen.of("retry")} <= {"checkpoint", "dead letters"}


def test_a_letter_is_never_on_disk_in_part(tmp_path, running, monkeypatch):
    """Half a dead letter would crash each later start, whatever else the store writes meanwhile."""
    target = MemoryTransport()
    ids = [f"bad-{n}" for n in range(120)]
    target.poison = set(ids)
    made = plan(tmp_path, ListFeed([batch("1-a", *map(change, ids))]), target)
    dead_letter = make_dead_letter(KEY, change("other", "2-b"), "transform", ValueError("no"))
    made.dead_letters.add([dead_letter])
    made.dead_letters.lower_version(dead_letter, 1)
    on_disk = []
    replace = Directory.replace

    def look(self, name, data):
        data = data if isinstance(data, bytes) else b"".join(data)
        on_disk.extend(line for line in data.splitlines() if b"bad-" in line)
        return replace(self, name, data)

    monkeypatch.setattr(Directory, "replace", look)
    run = running(made)
    run.until(lambda: made.dead_letters.count(KEY) > len(ids))
    run.finish()

    assert on_disk
    assert [line for line in on_disk if b"version" not in line] == []


def test_a_target_never_saves_a_checkpoint_past_a_document_that_may_have_regressed(tmp_path, running):
    """Within one batch nothing is refused, and the process may die before the source is asked."""

    class Dying(ListFeed):
        def leaves(self, ids):
            raise SystemError("killed")

    target = MemoryTransport(transactional=True)
    feed = Dying([batch("1-a", change("a", "5-x"), change("a", "2-z"))])
    run = running(plan(tmp_path, feed, target))
    with pytest.raises(SystemError):
        run.greenlet.get(timeout=60)

    assert target.target["checkpoint"].seq == Seq.BEGINNING


def test_a_lone_dead_letter_on_a_quiet_feed_is_on_disk_within_a_second(tmp_path, running):
    """No later batch comes to save it, and the next regular save is far away."""
    seen = Recorder()
    feed = ListFeed([batch(1, change("bad"), caught_up=True)])
    options = CheckpointOptions(interval=3600.0)
    parts = plan(
        tmp_path,
        feed,
        MemoryTransport(transactional=True),
        pillow=failing_on("bad"),
        observer=seen,
        checkpoints=options,
    )
    run = running(parts)
    run.until(lambda: seen.of("dead_letter"))
    assert parts.dead_letters.unsynced(KEY)
    run.until(lambda: not parts.dead_letters.unsynced(KEY), seconds=5)
    assert list_stored_ids(tmp_path / "dead-letters") == ["bad"]


def list_stored_ids(folder):
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    with closing(DeadLetters(copy)) as store:
        return [each.id for each in store.list(KEY)]
