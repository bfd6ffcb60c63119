from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import PASS_TO_BEGIN, Checkpoint, CheckpointStore, ConfigDigest, Seq, TailKey
from pillows.databases.member_store import MemberStore, PatternStore, carry_over

PILLOW, A, B = (TailKey("users", f"couch/{name}") for name in ("user-*", "user-a", "user-b"))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def test_a_database_goes_on_from_its_own_checkpoint(store: CheckpointStore) -> None:
    members = MemberStore(store, Checkpoint(seq=Seq.BEGINNING))
    assert members.get(A) is None
    saved = Checkpoint(seq=Seq.of("5-x"), changes=5)
    members.save(A, saved)
    assert members.get(A) == saved
    assert members.get(B) is None


def test_a_reset_of_the_pillow_resets_each_database_under_a_higher_epoch(store: CheckpointStore) -> None:
    old = Checkpoint(seq=Seq.of("5-x"), changes=5, epoch=1, pass_epoch=1)
    store.save(A, old)
    members = MemberStore(store, Checkpoint(seq=Seq.BEGINNING, epoch=4, pass_epoch=4))
    reset, fresh = members.get(A), members.get(B)
    assert reset is not None
    assert fresh is not None
    for each in (reset, fresh):
        assert (each.seq, each.pass_epoch, each.epoch) == (Seq.BEGINNING, PASS_TO_BEGIN, 3)
    members.save(A, reset.begin_pass(epoch=4, first_pass=False))
    again = members.get(A)
    assert again is not None
    assert again.pass_epoch == 4


def test_a_database_keeps_an_epoch_of_its_own_that_is_higher(store: CheckpointStore) -> None:
    store.save(A, Checkpoint(seq=Seq.of("5-x"), epoch=9, pass_epoch=1))
    reset = MemberStore(store, Checkpoint(seq=Seq.BEGINNING, epoch=4, pass_epoch=4)).get(A)
    assert reset is not None
    assert reset.epoch == 9


def test_a_new_database_is_on_disk_before_its_rows_are_written(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes: list[int] = []
    flush = store.flush
    monkeypatch.setattr(store, "flush", lambda: (flushes.append(1), flush()))
    members = MemberStore(store, Checkpoint(seq=Seq.BEGINNING))
    members.save(A, Checkpoint(seq=Seq.BEGINNING))
    assert flushes == [1]
    members.save(A, Checkpoint(seq=Seq.of("1-a"), changes=1))
    assert flushes == [1, 1]
    members.save(A, Checkpoint(seq=Seq.of("1-a"), changes=1, saved_at=77.0))
    assert flushes == [1, 1]


def test_a_copy_of_what_a_target_has_waits_for_no_flush_after_the_beginning_of_a_pass(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes: list[int] = []
    flush = store.flush
    monkeypatch.setattr(store, "flush", lambda: (flushes.append(1), flush()))
    members = MemberStore(store, Checkpoint(seq=Seq.BEGINNING), is_copy=True)
    members.save(A, Checkpoint(seq=Seq.BEGINNING))
    assert flushes == [1]
    members.save(A, Checkpoint(seq=Seq.of("1-a"), changes=1))
    members.save(A, Checkpoint(seq=Seq.of("2-a"), changes=2))
    assert flushes == [1]
    assert members.get(A) == Checkpoint(seq=Seq.of("2-a"), changes=2)
    reset = store.edit(A, Checkpoint.reset)
    members.save(A, reset.begin_pass(epoch=2, first_pass=False))
    assert flushes == [1, 1]


def test_the_pillow_sees_no_database_as_a_former_source(store: CheckpointStore) -> None:
    for key in (PILLOW, A, TailKey("users", "couch/other")):
        store.save(key, Checkpoint(seq=Seq.BEGINNING))
    assert PatternStore(store, lambda tail: tail == A).keys() == [TailKey("users", "couch/other"), PILLOW]


def test_a_changed_pattern_goes_on_from_the_checkpoint_of_the_former_one(store: CheckpointStore) -> None:
    digest = ConfigDigest(source="ours")
    older, former, key = (TailKey("users", f"couch/{name}") for name in ("a*", "a*,b", "a,b"))
    store.save(older, Checkpoint(seq=Seq.of("3-x"), epoch=2, pass_epoch=2, digest=digest))
    store.edit(former, lambda _: Checkpoint(seq=Seq.of("9-x"), epoch=4, pass_epoch=4, digest=digest))
    store.save(A, Checkpoint(seq=Seq.of("5-x"), epoch=9, digest=digest))
    store.save(TailKey("users", "other/a*"), Checkpoint(seq=Seq.of("7-x"), epoch=7, digest=digest))
    store.save(TailKey("others", "couch/a*"), Checkpoint(seq=Seq.of("7-x"), epoch=7, digest=digest))
    assert carry_over(store, key, "another") is None
    assert store.get(key) is None
    assert carry_over(store, key, "ours") == former
    carried = store.get(key)
    assert carried is not None
    assert (carried.seq, carried.epoch, carried.pass_epoch) == (Seq.BEGINNING, 4, 4)
    assert carried.edits == 2, "a copy of an earlier time in a target counts less"
    assert carry_over(store, key, "ours") is None
    assert store.get(A) == Checkpoint(seq=Seq.of("5-x"), epoch=9, digest=digest)
