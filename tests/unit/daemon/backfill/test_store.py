"""The files of backfills, with a second copy that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import StoreWriteError, TailKey
from daemon.backfill.backfill import Backfill, BackfillState, Selection
from daemon.backfill.store import BackfillStore
from tests.support.dict_replica import DictReplica

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
