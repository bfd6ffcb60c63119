"""A checkpoint that cannot be read stops its own tail, and no other."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from checkpoints import Checkpoint, CheckpointStore, IntegrityError, Seq, TailKey

ONE, TWO, NEW = (TailKey(name, "couch/db") for name in ("one", "two", "new"))


def at(seq: object, **more: object) -> Checkpoint:
    return Checkpoint(seq=Seq.of(seq), **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints"
    with CheckpointStore(path) as store:
        store.save(ONE, at("1-x"))
        store.save(TWO, at("2-x"))
    return path


def file_of(path: Path, text: bytes) -> Path:
    files = [file for file in path.glob("*.json") if b"pass_epoch" in file.read_bytes()]
    return next(file for file in files if text in file.read_bytes())


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def garble(file: Path) -> None:
    file.write_bytes(os.urandom(100))


@pytest.mark.parametrize("harm", [cut, garble, Path.unlink])
@pytest.mark.parametrize("again", [False, True])
def test_only_the_tail_whose_file_cannot_be_read_is_refused(path, harm, again):
    harm(file := file_of(path, b"1-x"))
    if again:
        CheckpointStore(path).close()

    with CheckpointStore(path) as store:
        assert store.get(TWO) == at("2-x")
        store.save(TWO, at("3-x"))
        with pytest.raises(IntegrityError, match=file.name):
            store.get(ONE)
        assert store.keys() == [TWO]
    with CheckpointStore(path, readonly=True) as store:
        assert store.get(TWO) == at("3-x")
        with pytest.raises(IntegrityError, match=file.name):
            store.get(ONE)


def test_a_reset_makes_another_and_nothing_that_was_set_aside_changes(path):
    cut(file := file_of(path, b"1-x"))
    before = {each.name: each.read_bytes() for each in path.iterdir() if each.name != ".lock"}
    with CheckpointStore(path) as store:
        edited = store.edit(ONE, Checkpoint.reset)
        assert store.get(ONE) == edited
    with CheckpointStore(path) as store:
        assert store.get(ONE) == edited
    aside = path.with_name("checkpoints.damaged-1")
    assert {each.name: each.read_bytes() for each in aside.iterdir() if each.name != ".lock"} == before
    assert file.name in before


def test_a_tail_that_is_new_may_have_been_there_until_what_was_set_aside_is_removed(path):
    cut(file_of(path, b"1-x"))
    with CheckpointStore(path) as store, pytest.raises(IntegrityError, match="if it had one"):
        store.get(NEW)
    shutil.rmtree(path.with_name("checkpoints.damaged-1"))
    with CheckpointStore(path) as store:
        assert store.get(NEW) is None


def test_one_that_was_saved_and_deleted_since_is_not_lost(path):
    cut(file_of(path, b"1-x"))
    with CheckpointStore(path) as store:
        store.delete(TWO)
        assert store.get(TWO) is None


@pytest.mark.parametrize("step", [0, 1])
def test_a_crash_while_it_is_set_aside_loses_nothing(path, monkeypatch, step):
    cut(file_of(path, b"1-x"))
    rename, done = os.rename, []

    def crash(source, target, **more):
        if Path(source).parent == path.parent:
            if len(done) == step:
                raise SystemError("killed")
            done.append(source)
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(SystemError):
        CheckpointStore(path)
    monkeypatch.undo()

    with CheckpointStore(path) as store:
        assert store.get(TWO) == at("2-x")
        with pytest.raises(IntegrityError):
            store.get(ONE)


def test_a_second_damage_is_set_aside_beside_the_first(path):
    cut(file_of(path, b"1-x"))
    CheckpointStore(path).close()
    cut(file_of(path, b"2-x"))
    with CheckpointStore(path) as store:
        for key in (ONE, TWO):
            with pytest.raises(IntegrityError):
                store.get(key)
    assert {each.name for each in path.parent.glob("*.damaged-*")} == {
        "checkpoints.damaged-1",
        "checkpoints.damaged-2",
    }


def test_where_it_cannot_be_moved_the_store_is_refused_as_it_is(path, monkeypatch):
    cut(file := file_of(path, b"1-x"))

    def busy(*_, **__):
        raise OSError("mount point")

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(IntegrityError, match=file.name):
        CheckpointStore(path)
