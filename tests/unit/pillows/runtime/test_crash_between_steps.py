"""A crash between any two steps: what was not done yet is still known afterwards."""

from __future__ import annotations

import pytest

from pillows.feed.base import DatabaseIdentity
from pillows.models import Change, ChangeBatch, write_version
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


class CrashError(Exception):
    """Stands for the end of the process."""


def test_a_letter_is_kept_until_a_document_that_went_back_was_written_again(tmp_path, running, clock):
    """It was once cleared before the epoch was raised; after a crash nothing brought the document again."""
    feed = ListFeed([batch(1, change("a", "2-restored", n=2), caught_up=True)])
    feed.sums = {"a": 2}
    memory = MemoryTransport()
    memory.target["rows"]["a"] = (write_version(1, 5), {"cases": ({"n": 5},)})
    memory.poison = {"a"}
    run = running(plan(tmp_path, feed, memory, clock=clock))
    run.until(lambda: run.settings.dead_letters.count(KEY) == 1 and run.tail.status().changes == 1)
    memory.poison.clear()

    def crash(checkpoint):
        raise CrashError

    memory.acquire = crash  # the epoch was raised in the state directory, and next would be in the target
    run.settings.dead_letters.retry(KEY, [("memory", "a")])
    with pytest.raises(CrashError):
        run.until(lambda: False)
    assert run.settings.dead_letters.count(KEY) == 1

    del memory.acquire
    again = running(run.settings)
    again.until(lambda: memory.live()["a"]["n"] == 2)
    again.until(lambda: run.settings.dead_letters.count(KEY) == 0)


def test_a_document_that_went_back_and_cannot_be_written_again_has_a_letter(tmp_path, running, clock):
    feed = ListFeed([batch(1, change("a", "2-restored", n=2), caught_up=True)])
    feed.sums = {"a": 2}
    memory = MemoryTransport()
    memory.target["rows"]["a"] = (write_version(1, 5), {"cases": ({"n": 5},)})
    claim = memory.acquire

    def spoil(checkpoint):
        claim(checkpoint)
        memory.poison = {"a"} if checkpoint.epoch > 1 else set()

    memory.acquire = spoil
    run = running(plan(tmp_path, feed, memory, clock=clock, max_tries=1))
    run.until(lambda: run.tail.status().changes == 1)
    run.finish()
    assert [
        (dead_letter.id, dead_letter.leaf_version) for dead_letter in run.settings.dead_letters.list(KEY)
    ] == [("a", 2)]


def purged(purge_seq):
    return DatabaseIdentity(server_uuid="u", instance_start_time="1700000000", purge_seq=purge_seq)


def once(tmp_path, running, feed, memory, until):
    """Runs a tail on a feed until something is so; the checkpoint that it leaves."""
    run = running(plan(tmp_path, feed, memory))
    run.until(lambda: until(run))
    checkpoint = run.finish()
    run.settings.store.close()
    run.settings.dead_letters.close()
    return checkpoint


@pytest.fixture
def filled(tmp_path, running):
    """A target that holds `a` and `b` of a source that was never purged."""
    memory = MemoryTransport()
    feed = ListFeed([batch(1, change("a", n="old"), change("b"))], identity=purged("0-p"))
    once(tmp_path, running, feed, memory, lambda run: run.tail.status().changes == 2)
    return memory


def test_a_purge_is_known_only_once_what_was_purged_is_gone(tmp_path, running, filled):
    """`a` is created anew and comes along the feed, before the feed has noticed that `b` was purged."""
    feed = ListFeed([batch(1), batch(2, change("a", "1-b", n="new"))], identity=purged("2-p"))
    written = once(tmp_path, running, feed, filled, lambda _: filled.live()["a"]["n"] == "new")
    assert (written.epoch, written.purge_seq) == (2, "0-p")  # so the next start is told of `b`

    gone = ChangeBatch(changes=(Change("b", ("0-purged",), 0, deleted=True),), seq=None, purge_seq="2-p")
    feed = ListFeed([batch(2), gone, batch(3)], identity=purged("2-p"))
    written = once(tmp_path, running, feed, filled, lambda run: run.tail.status().changes == 4)
    assert (set(filled.live()), written.purge_seq) == ({"a"}, "2-p")


def test_what_is_created_anew_after_the_purge_is_known_is_written_too(tmp_path, running, filled):
    """The new document has the same revision number, and the server need not list what was purged."""
    told = ChangeBatch(changes=(), seq=None, purge_seq="2-p")
    again = batch(2, change("a", "1-b", n="new"))
    feed = ListFeed([batch(1), told, again], identity=purged("2-p"))
    written = once(tmp_path, running, feed, filled, lambda _: filled.live()["a"]["n"] == "new")
    assert (written.epoch, written.purge_seq) == (2, "2-p")


def test_a_purge_position_of_another_copy_is_no_purge(tmp_path, running, filled):
    """Every node of a cluster has its own: a replay would be written again under an epoch each."""
    replay = batch(2, change("a", n="old"))
    feed = ListFeed([batch(1), replay], identity=purged("0-other"))
    written = once(tmp_path, running, feed, filled, lambda run: run.tail.status().changes == 3)
    assert written.epoch == 1
