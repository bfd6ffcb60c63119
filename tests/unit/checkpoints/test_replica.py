"""A checkpoint store with a second copy, which counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkpoints import Checkpoint, CheckpointStore, Seq, StoreWriteError, TailKey
from tests.support.dict_replica import DictReplica

TAIL = TailKey("cases", "couch/cases")
OTHER = TailKey("forms", "couch/forms")


def at(seq: str) -> Checkpoint:
    return Checkpoint(seq=Seq(seq), saved_at=1000.0)


def test_an_empty_replica_is_filled_and_followed(tmp_path: Path) -> None:
    replica = DictReplica()
    with CheckpointStore(tmp_path / "one") as store:
        store.save(TAIL, at("1"))
        store.attach(replica)
        store.save(TAIL, at("2"))
        store.save(OTHER, at("7"))
    with CheckpointStore(tmp_path / "two") as store:
        store.attach(replica)
        assert (store.get(TAIL), store.get(OTHER)) == (at("2"), at("7"))
        assert [entry.seq for entry in store.history(TAIL)] == [Seq("1")]


def test_a_filled_replica_replaces_what_is_here_on_disk_too(tmp_path: Path) -> None:
    replica = DictReplica()
    with CheckpointStore(tmp_path / "one") as store:
        store.attach(replica)
        store.save(TAIL, at("5"))
    with CheckpointStore(tmp_path / "two") as store:
        store.save(TAIL, at("1"))
        store.save(OTHER, at("1"))
        store.attach(replica)
        assert (store.get(TAIL), store.get(OTHER)) == (at("5"), None)
    with CheckpointStore(tmp_path / "two", readonly=True) as store:
        assert (store.get(TAIL), store.get(OTHER)) == (at("5"), None)


def test_a_save_that_the_replica_does_not_take_failed_and_comes_again(tmp_path: Path) -> None:
    replica = DictReplica()
    with CheckpointStore(tmp_path) as store:
        store.attach(replica)
        store.save(TAIL, at("1"))
        replica.fails = True
        with pytest.raises(StoreWriteError, match="the replica is away"):
            store.save(TAIL, at("2"))
        assert replica.entries
        assert json.loads(replica.entries["checkpoint", *_names(TAIL)])[-1]["seq"] == 1
        replica.fails = False
        store.save(OTHER, at("7"))  # any later save brings it along
        assert json.loads(replica.entries["checkpoint", *_names(TAIL)])[-1]["seq"] == 2


def test_an_edit_that_the_replica_does_not_take_is_undone_in_both(tmp_path: Path) -> None:
    replica = DictReplica()
    with CheckpointStore(tmp_path) as store:
        store.attach(replica)
        replica.fails = True
        with pytest.raises(StoreWriteError):
            store.edit(TAIL, lambda _: at("9"))
        assert store.get(TAIL) is None
        replica.fails = False
        store.save(OTHER, at("7"))
        assert replica.entries is not None
        assert ("checkpoint", *_names(TAIL)) not in replica.entries
        edited = store.edit(TAIL, lambda _: at("9"))
        assert json.loads(replica.entries["checkpoint", *_names(TAIL)])[-1]["generation"] == edited.edits == 1


def _names(tail: TailKey) -> tuple[str, str]:
    return (tail.pillow, tail.source)
