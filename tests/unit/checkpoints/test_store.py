"""The checkpoint store: what a running pillow saves, and an operator edits."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import gevent
import pytest

from checkpoints import (
    POD,
    Checkpoint,
    CheckpointMoved,
    CheckpointStore,
    IntegrityError,
    Seq,
    StoreError,
    StoreWriteError,
    TailKey,
)
from checkpoints.files.directory import Directory

KEY = TailKey("cases", "couch/cases")


def at(seq, *, edits=0, saved_at=0.0, changes=0):
    return Checkpoint(seq=Seq.of(seq), edits=edits, saved_at=saved_at, changes=changes)


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
        assert edited.edits == 1
        with pytest.raises(CheckpointMoved):
            store.save(KEY, at("6-x"))
        assert store.get(KEY) == edited
        store.save(KEY, at("6-x", edits=1))
        assert store.get(KEY).seq == Seq.of("6-x")


def test_an_edit_may_create_and_always_outranks_what_it_was_made_from(tmp_path):
    with CheckpointStore(tmp_path) as store:
        assert store.edit(KEY, lambda present: at(1, edits=4)).edits == 5


def test_a_deleted_checkpoint_is_gone_and_the_running_pillow_notices(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.edit(KEY, lambda present: at(1))
        store.delete(KEY)
        assert store.get(KEY) is None
        assert store.keys() == []
        with pytest.raises(CheckpointMoved):
            store.save(KEY, at(2, edits=1))


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
    file = next(file for file in tmp_path.glob("*.json") if b"pass_epoch" in file.read_bytes())
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
        output = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.startswith("5-x\n")
    assert f"process {os.getpid()}" in output


def test_it_is_a_pod_with_a_file_for_each_checkpoint(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for pillow in ("cases", "forms"):
            store.save(TailKey(pillow, "couch/db"), at("1-x", saved_at=0.0))
        before = {file.name: file.read_bytes() for file in tmp_path.glob("*.json")}
        store.save(TailKey("forms", "couch/db"), at("2-x", saved_at=1.0))
        after = {file.name: file.read_bytes() for file in tmp_path.glob("*.json")}
        [changed] = [name for name in after if after[name] != before[name]]
        assert after[changed].count(b"\n") == 1
        assert after[changed].startswith(b'["checkpoint", "forms", "couch/db"]\t')


def test_a_save_is_on_disk_when_it_returns(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for number in range(3):
            store.save(KEY, at(f"{number}-x"))
            with CheckpointStore(tmp_path, readonly=True) as stored:
                assert stored.get(KEY).seq == Seq.of(f"{number}-x")


@pytest.mark.parametrize("token", [0, 2**63 - 1, [7, "g1A"], "7-g1AAAA" + "x" * 4000, ""])
def test_tokens_keep_their_type_and_every_character(tmp_path, token):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at(token))
    with CheckpointStore(tmp_path, readonly=True) as store:
        assert store.get(KEY).seq == Seq.of(token)
        assert type(store.get(KEY).seq.value) is type(token)


def test_saves_that_fall_due_together_are_one_turn_of_the_disk(tmp_path, slow_disk):
    with CheckpointStore(tmp_path) as store:
        keys = [TailKey(f"pillow {number}", "couch/db") for number in range(100)]
        for key in keys:
            store.save(key, at("0"))
        slow_disk(0.001)
        before = store._pod._core.commits
        gevent.joinall([gevent.spawn(store.save, key, at("1")) for key in keys], raise_error=True)
        assert store._pod._core.commits - before == 2  # the first alone, all others together
        with CheckpointStore(tmp_path, readonly=True) as stored:
            assert {stored.get(key).seq for key in keys} == {Seq.of("1")}


def test_history_keeps_what_an_edit_replaced(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        store.save(KEY, at("2-x", saved_at=10.0))
        store.edit(KEY, lambda present: replace(present, seq=Seq.BEGINNING, saved_at=11.0))
        assert [str(entry.seq) for entry in store.history(KEY)] == ["0", "2-x", "1-x"]


def test_history_goes_on_when_the_clock_was_set_back(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for saved_at in (1000.0, 10.0, 20.0):
            store.save(KEY, at(str(saved_at), saved_at=saved_at))
        assert [entry.saved_at for entry in store.history(KEY)] == [10.0, 1000.0]


def test_a_full_disk_keeps_what_was_saved_and_undoes_an_edit(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        full = OSError(28, "No space left on device")
        write = Directory._put
        monkeypatch.setattr(Directory, "_put", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises(StoreWriteError, match="No space left"):
            store.save(KEY, at("2-x", saved_at=1.0))
        with pytest.raises(StoreWriteError, match="No space left"):
            store.edit(KEY, lambda present: replace(present, seq=Seq.BEGINNING))
        assert store.get(KEY) == at("2-x", saved_at=1.0)
        assert [str(entry.seq) for entry in store.history(KEY)] == ["1-x"]
        with CheckpointStore(tmp_path, readonly=True) as stored:
            assert stored.get(KEY).seq == Seq.of("1-x")
        monkeypatch.setattr(Directory, "_put", write)
        store.save(KEY, at("3-x", saved_at=2.0))
    with CheckpointStore(tmp_path, readonly=True) as stored:
        assert stored.get(KEY).seq == Seq.of("3-x")


def test_a_checkpoint_of_a_newer_pillowd_is_refused_and_can_be_replaced(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
        other = TailKey("other", "couch/cases")
        store.save(other, at("5-x"))
        stored = store._pod["checkpoint", KEY.pillow, KEY.source]
        stored.update(generation=7, new_field=1)
        with pytest.raises(IntegrityError, match=r"cases@couch/cases .*'new_field'"):
            store.get(KEY)
        with pytest.raises(IntegrityError):
            store.save(KEY, at("2-x"))
        assert store.get(other).seq == Seq.of("5-x")
        edited = store.edit(KEY, lambda present: at("9-x") if present is None else present)
        assert edited.edits == 8
        assert store.get(KEY) == edited


ENTRY = {"seq": "1-x", "saved_at": 1.0, "changes": 0}


NO_HISTORIES = [
    [ENTRY | {"newer": 1}],
    [{"seq": "1-x"}],
    [ENTRY | {"seq": None}],
    [ENTRY | {"seq": "\ud800"}],
    [ENTRY | {"saved_at": "x"}],
    [7],
    None,
]


@pytest.mark.parametrize("stored", NO_HISTORIES, ids=ascii)
def test_a_history_that_cannot_be_read_stops_nobody_and_can_be_replaced(tmp_path, caplog, stored):
    """A tail goes on without it, and leaves it to whoever wrote it; an operator's edit begins another."""
    with CheckpointStore(tmp_path) as store:
        store._pod["history", KEY.pillow, KEY.source] = stored
        for second in range(0, 300, 30):
            store.save(KEY, at(f"{second}-x", saved_at=float(second)))
        assert store.get(KEY).seq == Seq.of("270-x")
        assert store._pod["history", KEY.pillow, KEY.source] == stored
        assert caplog.text.count("the history of cases@couch/cases") == 1
        with pytest.raises(IntegrityError, match=r"history of cases@couch/cases .*`pillowd checkpoint set`"):
            store.history(KEY)
        store.edit(KEY, lambda present: replace(present, seq=Seq.BEGINNING, saved_at=500.0))
        assert [str(entry.seq) for entry in store.history(KEY)] == ["0", "270-x"]
        store.save(KEY, at("1-y", edits=1, saved_at=600.0))
        assert [str(entry.seq) for entry in store.history(KEY)] == ["1-y", "0", "270-x"]


def test_a_history_that_becomes_unreadable_stops_nobody_either(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        store._pod["history", KEY.pillow, KEY.source] = [7]
        store.save(KEY, at("2-x", saved_at=100.0))
        store.save(KEY, at("3-x", saved_at=200.0))
        assert store.get(KEY).seq == Seq.of("3-x")
        store.delete(KEY)
        assert store.history(KEY) == []


def test_an_edit_that_the_disk_refuses_keeps_an_unreadable_history(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        store._pod["history", KEY.pillow, KEY.source] = [ENTRY | {"newer": 1}]
        full = OSError(28, "No space left on device")
        with monkeypatch.context() as patched:
            patched.setattr(Directory, "_put", lambda *_: (_ for _ in ()).throw(full))
            with pytest.raises(StoreWriteError):
                store.edit(KEY, Checkpoint.reset)
        assert store._pod["history", KEY.pillow, KEY.source] == [ENTRY | {"newer": 1}]


def test_a_newer_format_of_the_store_is_refused_by_name(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
    meta = tmp_path / ".meta"
    assert meta.read_text().startswith('{"format": 1, ')
    meta.write_text(meta.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(IntegrityError, match=r"\.meta: it has format 2, this pillowd knows 1"):
        CheckpointStore(tmp_path)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with POD(tmp_path, {"a": 1}):
        pass
    with pytest.raises(StoreError, match="of the kind 'pod', not 'checkpoints'"):
        CheckpointStore(tmp_path)


def test_many_pillows_come_and_go_without_leaving_files(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
        for number in range(30):
            key = TailKey(f"pillow {number}", "couch/db")
            store.save(key, at("1-x"))
            store.delete(key)
        assert len(list(tmp_path.glob("*.json"))) < 10
        assert store.keys() == [KEY]
    with CheckpointStore(tmp_path) as store:
        assert store.get(KEY) == at("1-x")
