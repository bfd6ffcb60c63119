"""The tail of one part of a pillow, whose other parts write into the same targets."""

from __future__ import annotations

from pillows.errors import RetryableError
from pillows.models import write_version
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import MemoryTransport
from tests.support.tails import plan


def test_a_later_epoch_of_another_part_is_followed(tmp_path, running):
    memory = MemoryTransport(target={"rows": {"a": (write_version(7, 1), {})}, "epoch": None})
    feed = ListFeed([batch("2-b", change("a", "2-b"), change("b"))])
    run = running(plan(tmp_path, feed, memory).replaced(is_part=True))
    run.until(lambda: set(memory.live()) == {"a", "b"})

    assert run.finish().epoch == 7
    assert memory.target["rows"]["a"][0] == write_version(7, 2)


def test_no_write_begins_while_another_process_may_have_taken_over(tmp_path, running, clock):
    memory = MemoryTransport()
    mine = [False]

    def check() -> None:
        if not mine[0]:
            raise RetryableError("the group may have moved on")

    feed = ListFeed([batch("1-a", change("a"))])
    run = running(plan(tmp_path, feed, memory, clock=clock).replaced(check_ownership=check))
    run.until(lambda: "the group may have moved on" in run.tail.reason)
    assert not memory.live()
    assert run.settings.store.get(run.settings.key) is None

    mine[0] = True
    run.until(memory.live)
    run.finish()
