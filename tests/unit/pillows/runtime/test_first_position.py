"""Which passes begin where the source says that documents without rows need not be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import Checkpoint, Seq
from pillows.models import write_version
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import RunningTail, plan

FIRST = Seq.of(["_all_docs", "9-x", None])


class Listing(ListFeed):
    """A source with many deletions."""

    def find_first(self) -> Seq:
        return FIRST


def begin(folder: Path, target: MemoryTransport) -> Seq:
    """Start a tail, and return where it reads from."""
    feed = Listing([batch("9-x", change("a", "1-a"), caught_up=True)])
    running = RunningTail(plan(folder, feed, target))
    running.until(lambda: feed.asked)
    running.finish()
    running.close_stores()
    return feed.asked[0]


def test_a_pass_into_empty_outputs_begins_there_and_the_position_is_saved_first(tmp_path: Path) -> None:
    target = MemoryTransport()
    assert begin(tmp_path, target) == FIRST
    assert target.claims[0].seq == FIRST


def test_outputs_with_rows_need_every_deletion(tmp_path: Path) -> None:
    """Rows of a run that saved no position may be of documents that were deleted since."""
    target = MemoryTransport()
    target.target["rows"]["old"] = (write_version(1, 1), {"cases": [{"n": 1}]})
    assert begin(tmp_path, target) == Seq.BEGINNING


def test_targets_that_remember_nothing_need_every_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryTransport, "remembers", False)
    assert begin(tmp_path, MemoryTransport()) == Seq.BEGINNING


def test_a_reset_of_filled_outputs_reads_everything(tmp_path: Path) -> None:
    target = MemoryTransport()
    begin(tmp_path, target)
    parts = plan(tmp_path, ListFeed(), target)
    parts.store.edit(KEY, Checkpoint.reset)
    parts.store.close()
    parts.dead_letters.close()
    assert begin(tmp_path, target) == Seq.BEGINNING
