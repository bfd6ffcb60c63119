"""The checkpoint store: what a running pillow saves, and an operator edits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from checkpoints import (
    Checkpoint,
    CheckpointMoved,
    CheckpointStore,
    IntegrityError,
    Seq,
    StoreLocked,
    TailKey,
)

KEY = TailKey("cases", "couch/cases")


def at(seq, *, generation=0, saved_at=0.0, changes=0):
    return Checkpoint(seq=Seq.of(seq), generation=generation, saved_at=saved_at, changes=changes)


def test_an_absent_checkpoint_is_none(tmp_path):
    with CheckpointStore(tmp_path / "state") as store:
        assert store.get(KEY) is None
        assert store.keys() == []
        assert store.history(KEY) == []


def test_a_saved_checkpoint_is_there_after_reopening(tmp_path):
    checkpoint = replace(at([7, "g1A"]), epoch=3, instance_start_time="170", server_uuid="abc")
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, checkpoint)
    with CheckpointStore(tmp_path) as store:
        assert store.get(KEY) == checkpoint
        assert store.keys() == [KEY]


def test_an_operators_edit_is_noticed_by_the_running_pillow(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("5-x"))
        edited = store.edit(KEY, lambda present: replace(present, seq=Seq.BEGINNING))
        assert edited.generation == 1
        with pytest.raises(CheckpointMoved):
            store.save(KEY, at("6-x"))
        assert store.get(KEY) == edited
        store.save(KEY, at("6-x", generation=1))
        assert store.get(KEY).seq == Seq.of("6-x")


def test_an_edit_may_create_and_always_outranks_what_it_was_made_from(tmp_path):
    with CheckpointStore(tmp_path) as store:
        assert store.edit(KEY, lambda present: at(1, generation=4)).generation == 5


def test_a_deleted_checkpoint_is_gone_and_the_running_pillow_notices(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.edit(KEY, lambda present: at(1))
        store.delete(KEY)
        assert store.get(KEY) is None
        assert store.keys() == []
        with pytest.raises(CheckpointMoved):
            store.save(KEY, at(2, generation=1))


def test_history_has_twenty_entries_a_minute_apart_newest_first(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for second in range(0, 60 * 30, 20):
            store.save(KEY, at(second, saved_at=float(second), changes=second))
        history = store.history(KEY)
    assert [entry.saved_at for entry in history] == [60.0 * minute for minute in range(29, 9, -1)]
    assert [entry.seq for entry in history] == [Seq.of(60 * minute) for minute in range(29, 9, -1)]


def test_what_cannot_be_read_is_refused_never_none(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("5-x"))
    file = next(file for file in tmp_path.glob("*.json") if b"5-x" in file.read_bytes())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=file.name), CheckpointStore(tmp_path) as store:
        store.get(KEY)


def test_a_second_process_is_refused_by_the_holders_pid_and_may_read(tmp_path):
    script = """
import sys
from checkpoints import *
key = TailKey("cases", "couch/cases")
print(CheckpointStore(sys.argv[1], readonly=True).get(key).seq)
try:
    CheckpointStore(sys.argv[1])
except StoreLocked as error:
    print(error)
"""
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("5-x"))
        run = [sys.executable, "-c", script, str(tmp_path)]
        output = subprocess.run(run, capture_output=True, text=True, check=True, timeout=30).stdout
    import os

    assert output.startswith("5-x\n")
    assert f"process {os.getpid()}" in output
    assert issubclass(StoreLocked, Exception)
