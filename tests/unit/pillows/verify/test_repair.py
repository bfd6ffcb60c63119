"""`verify --repair` puts right what differs, and never an older state over a newer one."""

from __future__ import annotations

import pytest
from gevent.event import Event

from pillows.errors import RetryableError
from pillows.models import write_version
from pillows.verify import repair as module
from tests.support.clock import FakeClock
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.tails import plan


@pytest.fixture
def repair(tmp_path):
    """Repairs the documents that a source says are such now; the epoch afterwards."""
    stores = []

    def run(targets, *changes, leaves=None):
        feed = ListFeed([batch(1, *changes, caught_up=True)])
        feed.sums = {change.id: change.leaf_version for change in changes} if leaves is None else leaves
        made = plan(tmp_path, feed, *targets, clock=FakeClock())
        stores.extend((made.store, made.dead_letters))
        module.repair(made.settings, made.services, ["a"], halt=Event())
        return made.store.get(KEY).epoch

    yield run
    for store in stores:
        store.close()


def holding(version: int, n: int = 0) -> MemoryTransport:
    target = MemoryTransport()
    target.target["rows"]["a"] = (write_version(1, version), {"cases": ({"_id": "a", "n": n},)})
    return target


def test_a_state_from_lagging_copies_is_not_written_over_a_newer_one(repair):
    """The target has had version 6 meanwhile; the copies that were asked are at 5."""
    target = holding(6, n=6)
    assert repair([target], change("a", "5-x", n=5), leaves={"a": 6}) == 1
    assert target.live()["a"]["n"] == 6


@pytest.mark.parametrize("make", [MemoryTransport, lambda: holding(4)])
def test_what_is_missing_or_older_is_written_and_outranks_nothing(repair, make):
    target = make()
    assert repair([target], change("a", "5-x", n=5)) == 1
    assert target.live()["a"]["n"] == 5
    assert target.target["rows"]["a"][0] == write_version(1, 5)


def test_what_has_the_sources_version_and_differs_all_the_same_is_written_anew(repair):
    """A row that was altered, or lost while the target remembers the version."""
    target = holding(5)
    assert repair([target], change("a", "5-x", n=5)) == 2
    assert target.live()["a"]["n"] == 5


def test_what_is_ahead_of_the_source_is_written_anew(repair):
    target = holding(9)
    assert repair([target], change("a", "5-x", n=5)) == 2
    assert target.live()["a"]["n"] == 5


def test_a_row_of_a_document_that_is_nowhere_goes(repair):
    target = holding(9)
    assert repair([target]) == 2
    assert target.live() == {}


def test_of_two_targets_the_one_that_is_newer_keeps_what_it_has(repair):
    """One target agrees with lagging copies; that is no reason to write to both under a higher epoch."""
    behind, newer = holding(5), holding(6, n=6)
    newer.name = "newer"
    assert repair([behind, newer], change("a", "5-x", n=5), leaves={"a": 6}) == 1
    assert newer.live()["a"]["n"] == 6


def test_a_repair_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "REPAIR_SECONDS", 0.01)
    with pytest.raises(RetryableError, match=r"not all was sent in 0\.01 s"), module.limit_repair() as halt:
        assert halt.wait(60)


def test_a_repair_in_time_is_not_given_up():
    with module.limit_repair() as halt:
        pass
    assert not halt.is_set()
