"""The files of backfills, with a second copy that counts."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest

from checkpoints import StoreWriteError, TailKey
from daemon.backfill.backfill import Backfill, BackfillState, Selection
from daemon.backfill.store import BackfillStore
from tests.support.dict_replica import DictReplica, SlowReplica

KEY = TailKey("cases", "couch/cases")


def backfill(id: str) -> Backfill:
    return Backfill(
        id=id,
        pillow=KEY.pillow,
        source=KEY.source,
        selection=Selection(),
        state=BackfillState.WAITING,
        created_at=1.0,
    )


def test_backfills_follow_a_replica(tmp_path: Path) -> None:
    replica = DictReplica()
    first = BackfillStore(tmp_path / "one")
    first.put(backfill("a"))
    first.put_ids(backfill("a"), 0, ["x", "ü\0"])
    first.attach(replica)
    first.put(backfill("b"))
    first.put_ids(backfill("b"), 0, ["y"])
    first.put(backfill("c"))
    first.remove(backfill("b"))
    second = BackfillStore(tmp_path / "two")
    second.put(backfill("foreign"))
    second.attach(replica)
    for each in (second, BackfillStore(tmp_path / "two")):
        assert [one.id for one in each.list()] == ["a", "c"]
        assert each.read_ids(backfill("a"), 0) == ["x", "ü\0"]
    replica.fails = True
    with pytest.raises(StoreWriteError):
        second.put(backfill("d"))
    assert second.get("d") is None


def test_what_is_changed_meanwhile_is_not_removed(tmp_path: Path) -> None:
    store = BackfillStore(tmp_path)
    store.attach(SlowReplica({}))
    known = store.put(backfill("a"))
    store.put_ids(known, 1, ["x"])
    changing = gevent.spawn(store.change, "a", lambda each: each.stop(BackfillState.FAILED, 2.0))
    gevent.sleep(0)
    store.remove(known)
    changed = changing.get(timeout=5)
    for each in (store, BackfillStore(tmp_path)):
        assert each.list() == [changed]
        assert each.read_ids(changed, 1) == ["x"]


def test_a_backfill_may_be_removed_twice_at_once(tmp_path: Path) -> None:
    store = BackfillStore(tmp_path)
    store.attach(SlowReplica({}))
    known = store.put(backfill("a"))
    gevent.joinall([gevent.spawn(store.remove, known) for _ in range(2)], timeout=5, raise_error=True)
    assert store.list() == BackfillStore(tmp_path).list() == []
