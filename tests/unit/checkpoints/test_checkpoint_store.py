"""The checkpoint store: what a running pillow saves, and an operator edits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import gevent
import pytest
from msgspec.structs import replace

from checkpoints import (
    POD,
    Checkpoint,
    CheckpointMoved,
    CheckpointStore,
    IntegrityError,
    NewerFormat,
    Seq,
    StoreClosed,
    StoreError,
    StoreWriteError,
    TailKey,
)
from checkpoints.files.directory import Directory
from checkpoints.journal.records import decode_value
from tests.unit.checkpoints.scripts import run

KEY = TailKey("cases", "couch/cases")


def changed(checkpoint: Checkpoint | None, **parts: Any) -> Checkpoint:
    assert checkpoint is not None
    return replace(checkpoint, **parts)


def at(seq, *, edits=0, saved_at=0.0, changes=0):
    return Checkpoint(seq=Seq.of(seq), edits=edits, saved_at=saved_at, changes=changes)


def put(store, kind, value):
    """Stores what a newer pillowd might have."""
    store._journal.put({(kind, KEY.pillow, KEY.source): value})


def raw(store, kind):
    return decode_value(store._journal.get((kind, KEY.pillow, KEY.source)))


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
        edited = store.edit(KEY, lambda present: changed(present, seq=Seq.BEGINNING))
        assert edited.edits == 1
        with pytest.raises(CheckpointMoved):
            store.save(KEY, at("6-x"))
        assert store.get(KEY) == edited
        store.save(KEY, at("6-x", edits=1))
        assert store.get(KEY).seq == Seq.of("6-x")


def test_an_edit_may_create_and_always_outranks_what_it_was_made_from(tmp_path):
    with CheckpointStore(tmp_path) as store:
        assert store.edit(KEY, lambda present: at(1, edits=4)).edits == 5


def test_history_has_twenty_entries_a_minute_apart_newest_first(tmp_path):
    with CheckpointStore(tmp_path) as store:
        for second in range(0, 60 * 30, 20):
            store.save(KEY, at(second, saved_at=float(second), changes=second))
        history = store.history(KEY)
    assert [entry.saved_at for entry in history] == [60.0 * minute for minute in range(29, 9, -1)]
    assert [entry.seq for entry in history] == [Seq.of(60 * minute) for minute in range(29, 9, -1)]


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


def test_saves_that_fall_due_together_share_an_fsync(tmp_path, slow_disk, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        keys = [TailKey(f"pillow {number}", "couch/db") for number in range(100)]
        for key in keys:
            store.save(key, at("0"))
        slow_disk(0.001)
        appends = []
        append = Directory.append
        monkeypatch.setattr(Directory, "append", lambda *args: (appends.append(args), append(*args)))
        gevent.joinall([gevent.spawn(store.save, key, at("1")) for key in keys], raise_error=True)
        assert len(appends) == 2  # the first alone, all others together
        with CheckpointStore(tmp_path, readonly=True) as stored:
            assert {stored.get(key).seq for key in keys} == {Seq.of("1")}


def test_history_keeps_what_an_edit_replaced(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        store.save(KEY, at("2-x", saved_at=10.0))
        store.edit(KEY, lambda present: changed(present, seq=Seq.BEGINNING, saved_at=11.0))
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
            store.edit(KEY, lambda present: changed(present, seq=Seq.BEGINNING))
        assert store.get(KEY) == at("2-x", saved_at=1.0)
        assert [str(entry.seq) for entry in store.history(KEY)] == ["1-x"]
        with CheckpointStore(tmp_path, readonly=True) as stored:
            assert stored.get(KEY).seq == Seq.of("1-x")
        monkeypatch.setattr(Directory, "_put", write)
        store.save(KEY, at("3-x", saved_at=2.0))
    with CheckpointStore(tmp_path, readonly=True) as stored:
        assert stored.get(KEY).seq == Seq.of("3-x")


@pytest.mark.parametrize("newer", [{"new_field": 1}, {"digest": {"source": "", "new_field": ""}}], ids=ascii)
def test_a_checkpoint_of_a_newer_pillowd_is_refused_and_can_be_replaced(tmp_path, newer):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
        other = TailKey("other", "couch/cases")
        store.save(other, at("5-x"))
        put(store, "checkpoint", at("1-x").to_json() | {"generation": 7} | newer)
        with pytest.raises(IntegrityError, match=r"cases@couch/cases .*'new_field'"):
            store.get(KEY)
        with pytest.raises(IntegrityError):
            store.save(KEY, replace(at("2-x"), edits=7))
        assert store.get(other).seq == Seq.of("5-x")
        edited = store.edit(KEY, lambda present: at("9-x") if present is None else present)
        assert edited.edits == 8
        assert store.get(KEY) == edited


@pytest.mark.parametrize("stored", [7, [], "x", None, True], ids=ascii)
def test_a_checkpoint_that_is_not_an_object_is_refused(tmp_path, stored):
    with CheckpointStore(tmp_path) as store:
        put(store, "checkpoint", stored)
        with pytest.raises(IntegrityError, match=r"cases@couch/cases .* it is not an object"):
            store.get(KEY)


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
        put(store, "history", stored)
        for second in range(0, 300, 30):
            store.save(KEY, at(f"{second}-x", saved_at=float(second)))
        assert store.get(KEY).seq == Seq.of("270-x")
        assert raw(store, "history") == stored
        assert caplog.text.count("the history of cases@couch/cases") == 1
        with pytest.raises(IntegrityError, match=r"history of cases@couch/cases .*`pillowd checkpoint set"):
            store.history(KEY)
        store.edit(KEY, lambda present: changed(present, seq=Seq.BEGINNING, saved_at=500.0))
        assert [str(entry.seq) for entry in store.history(KEY)] == ["0", "270-x"]
        store.save(KEY, at("1-y", edits=1, saved_at=600.0))
        assert [str(entry.seq) for entry in store.history(KEY)] == ["1-y", "0", "270-x"]


def test_a_history_that_becomes_unreadable_stops_nobody_either(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        put(store, "history", [7])
        store.save(KEY, at("2-x", saved_at=100.0))
        store.save(KEY, at("3-x", saved_at=200.0))
        assert store.get(KEY).seq == Seq.of("3-x")


def test_an_edit_that_the_disk_refuses_keeps_an_unreadable_history(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        put(store, "history", [ENTRY | {"newer": 1}])
        full = OSError(28, "No space left on device")
        with monkeypatch.context() as patched:
            patched.setattr(Directory, "_put", lambda *_: (_ for _ in ()).throw(full))
            with pytest.raises(StoreWriteError):
                store.edit(KEY, Checkpoint.reset)
        assert raw(store, "history") == [ENTRY | {"newer": 1}]


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("number", [1, 3])
def test_another_format_of_the_store_is_refused_by_name(tmp_path, number, readonly):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
    meta = tmp_path / ".meta"
    meta.write_text(meta.read_text().replace('"format": 2', f'"format": {number}'))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != ".lock"}
    with pytest.raises(NewerFormat, match=rf"\.meta: it has format {number}, this pillowd knows 2"):
        CheckpointStore(tmp_path, readonly=readonly)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != ".lock"} == before


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with POD(tmp_path, {"a": 1}):
        pass
    with pytest.raises(StoreError, match="of the kind 'pod', not 'checkpoints'"):
        CheckpointStore(tmp_path)


def test_a_closed_store_says_so(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(KEY, at("1-x"))
    store.close()
    store.close()
    for use in (
        lambda: store.get(KEY),
        store.keys,
        lambda: store.history(KEY),
        lambda: store.save(KEY, at("2-x")),
        lambda: store.edit(KEY, Checkpoint.reset),
    ):
        with pytest.raises(StoreClosed):
            use()


def test_a_store_that_is_read_beside_its_owner_refuses_to_write(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
        with CheckpointStore(tmp_path, readonly=True) as stored:
            with pytest.raises(StoreError, match="open for reading only"):
                stored.save(KEY, at("2-x"))
            assert stored.get(KEY) == at("1-x")


def test_a_forked_child_cannot_use_the_store_and_the_parent_goes_on(tmp_path):
    script = """
import os, sys
from checkpoints import *
key = TailKey("cases", "couch/cases")
store = CheckpointStore(sys.argv[1])
store.save(key, Checkpoint(seq=Seq.of("1-x")))
if not (child := os.fork()):
    try:
        store.save(key, Checkpoint(seq=Seq.of("2-x")))
    except StoreError as error:
        print(error, flush=True)
    store.close()
    os._exit(0)
os.waitpid(child, 0)
store.save(key, Checkpoint(seq=Seq.of("3-x")))
store.close()
"""
    assert "from which this one was forked" in run(script, tmp_path)
    with CheckpointStore(tmp_path) as store:
        assert store.get(KEY).seq == Seq.of("3-x")


def test_an_edit_that_the_disk_refuses_leaves_a_tail_without_checkpoint_as_it_was(tmp_path, monkeypatch):
    other = TailKey("other", "couch/cases")
    with CheckpointStore(tmp_path) as store:
        store.save(other, at("1-x"))
        with monkeypatch.context() as patched:
            patched.setattr(Directory, "_put", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(StoreWriteError, match="full"):
                store.edit(KEY, Checkpoint.reset)
        assert (store.get(KEY), store.history(KEY), store.keys()) == (None, [], [other])
        store.save(other, at("2-x"))
        with CheckpointStore(tmp_path, readonly=True) as stored:
            assert (stored.get(KEY), stored.get(other)) == (None, at("2-x"))


def test_an_edit_that_was_saved_over_is_not_taken_back(tmp_path, monkeypatch):
    """The write of the edit fails, but a tail has saved a checkpoint on top of it before that is reported."""
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
        sync, refused = store._journal.sync, []

        def refusing():
            if not refused:
                refused.append(1)
                store.save(KEY, at("3-x", edits=1))
                raise StoreWriteError
            sync()

        monkeypatch.setattr(store._journal, "sync", refusing)
        with pytest.raises(StoreWriteError):
            store.edit(KEY, lambda present: changed(present, seq=Seq.of("2-x")))
        assert store.get(KEY) == at("3-x", edits=1)


def test_an_edit_of_the_same_position_is_one_history_entry_more(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        store.edit(KEY, lambda present: changed(present, saved_at=1.0))
        assert [(str(entry.seq), entry.saved_at) for entry in store.history(KEY)] == [
            ("1-x", 1.0),
            ("1-x", 0.0),
        ]


@pytest.mark.parametrize(("saved_at", "entries"), [(59.9, 1), (60.0, 2), (-59.9, 1), (-60.0, 2)])
def test_a_history_entry_is_due_a_minute_after_the_last(tmp_path, saved_at, entries):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("2-x", saved_at=saved_at))
        assert len(store.history(KEY)) == entries


@pytest.mark.parametrize("edits", ["7", None, 1.5])
def test_an_unreadable_count_of_edits_begins_at_one(tmp_path, edits):
    with CheckpointStore(tmp_path) as store:
        put(store, "checkpoint", {"generation": edits})
        assert store.edit(KEY, lambda present: at("9-x")).edits == 1


@pytest.mark.parametrize("name", sorted({*Checkpoint.__struct_fields__} - {"seq", "digest"}))
def test_a_field_is_stored_unless_it_has_its_default(tmp_path, name):
    default = getattr(at("1-x"), name)
    other = {bool: True, int: 7, float: 7.5, type(None): 7.5 if name == "pipeline_changed_at" else "x"}
    full = replace(at("1-x"), **{name: other[type(default)]})
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, replace(full, edits=0))
        if name == "edits":
            store.edit(KEY, lambda _: replace(full, edits=6))
        assert store.get(KEY) == full
        assert len(raw(store, "checkpoint")) == 3
        assert raw(store, "checkpoint").keys() >= {"seq", "digest"}
    with CheckpointStore(tmp_path) as store:
        assert store.get(KEY) == full


def test_the_defaults_of_a_checkpoint_stay_as_they_are():
    """Defaults are not stored, so another default would change checkpoints that are on disk."""
    fields = at("1-x").to_json()
    del fields["seq"], fields["digest"]
    assert fields == {
        "generation": 0,
        "epoch": 1,
        "pass_epoch": 1,
        "pass_done": False,
        "first_pass": False,
        "instance_start_time": None,
        "server_uuid": None,
        "purge_seq": None,
        "marked": False,
        "pipeline_changed_at": None,
        "changes": 0,
        "saved_at": 0.0,
    }


def test_a_note_stays_with_its_checkpoint_until_that_is_saved_or_edited(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.note(KEY, ["lost"])
        assert store.get_note(KEY) is None
        store.save(KEY, at("1-x"))
        store.note(KEY, ["proof"])
        assert (store.get(KEY), store.get_note(KEY)) == (at("1-x"), ["proof"])
    with CheckpointStore(tmp_path) as store:
        assert (store.get(KEY), store.get_note(KEY)) == (at("1-x"), ["proof"])
        store.save(KEY, at("1-x"))
        assert store.get_note(KEY) is None
        store.note(KEY, ["proof"])
        store.edit(KEY, lambda present: changed(present, seq=Seq.of("2-x")))
        assert store.get_note(KEY) is None
        put(store, "checkpoint", "damaged")
        assert store.get_note(KEY) is None


def measure_saves(path, monkeypatch, *, keys, saves):
    """Returns the bytes and fsyncs of each of some saves in a store of so many checkpoints."""
    with CheckpointStore(path) as store:
        for number in range(keys):
            key = TailKey(f"pillow {number:06}", "couch/db")
            store._put(key, at("1-x", saved_at=1.0), store._history_to_extend(key, at("1-x", saved_at=1.0)))
        store._journal.sync()
        count = Counter()
        put, fsync = Directory._put, Directory._fsync
        with monkeypatch.context() as patched:
            patched.setattr(
                Directory, "_put", lambda *args: (count.update(bytes=len(args[-1])), put(*args))[1]
            )
            patched.setattr(Directory, "_fsync", lambda *args: (count.update(fsyncs=1), fsync(*args)))
            figures = []
            for number in range(saves):
                count.clear()
                store.save(TailKey(f"pillow {number:06}", "couch/db"), at("2-x", saved_at=2.0))
                figures.append(dict(count))
        return figures


def test_a_save_costs_the_same_however_many_checkpoints_there_are(tmp_path, monkeypatch):
    few = measure_saves(tmp_path / "few", monkeypatch, keys=100, saves=20)
    many = measure_saves(tmp_path / "many", monkeypatch, keys=10_000, saves=20)
    assert few == many
    assert {each["fsyncs"] for each in few} == {1}
    assert all(each["bytes"] < 1000 for each in few)


@pytest.mark.proof
def test_saves_take_microseconds_with_ten_thousand_checkpoints(tmp_path):
    """Measure a single save, and a thousand that share a flush; CPU time only, since disks differ."""
    keys = [TailKey("users", f"couch/user-{number:05}") for number in range(10_000)]
    with CheckpointStore(tmp_path) as store:
        for key in keys:
            store.save(key, at("1-x"), flush=False, keep_history=False)
        store.flush()
        ones, groups = [], []
        for turn in range(20):
            began = time.process_time()
            store.save(keys[turn], at(f"2-{turn}", saved_at=turn))
            ones.append(time.process_time() - began)
            began = time.process_time()
            for key in keys[1000:2000]:
                store.save(key, at(f"2-{turn}", saved_at=turn), flush=False, keep_history=False)
            store.flush()
            groups.append((time.process_time() - began) / 1000)
    began = time.perf_counter()
    with CheckpointStore(tmp_path) as store:
        opened = time.perf_counter() - began
        assert store.keys() == keys
    figures = (min(ones) * 1e6, min(groups) * 1e6, opened)  # what else runs on the machine only adds
    print("\none save {:.0f} us, of a thousand {:.1f} us each, opened in {:.2f} s".format(*figures))
    assert figures[0] <= 300
    assert figures[1] <= 20
    assert figures[2] < 1.0


def test_a_save_takes_few_calls(tmp_path):
    """A save once went through a whole dictionary, with 157 calls of our own."""
    calls = Counter()

    def count(frame, event, _):
        if event == "call" and "/checkpoints/" in frame.f_code.co_filename:
            calls[frame.f_code.co_name] += 1

    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x"))
        sys.setprofile(count)
        try:
            store.get(KEY)
            store.save(KEY, at("2-x"))
        finally:
            sys.setprofile(None)
    assert calls.total() <= 40, calls


def test_a_tail_whose_checkpoint_may_have_been_damaged_is_refused(tmp_path):
    with CheckpointStore(tmp_path) as store:
        (tmp_path / "journal.damaged-1").touch()
        store.save(KEY, at("1-x"))
    with CheckpointStore(tmp_path) as store:
        assert store.get(KEY) == at("1-x")
        with pytest.raises(IntegrityError, match="damaged-1 is damaged"):
            store.get(TailKey("other", "couch/cases"))


def test_a_history_alone_is_no_checkpoint(tmp_path):
    with CheckpointStore(tmp_path) as store:
        put(store, "history", [])
        assert store.keys() == []


def test_an_edit_that_was_taken_back_delays_no_history_entry(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as store:
        store.save(KEY, at("1-x", saved_at=0.0))
        with monkeypatch.context() as patched:
            patched.setattr(Directory, "append", refuse_to_write)
            with pytest.raises(StoreWriteError):
                store.edit(KEY, lambda present: changed(present, saved_at=1000.0))
        store.save(KEY, at("2-x", saved_at=1030.0))
        assert [entry.saved_at for entry in store.history(KEY)] == [1030.0, 0.0]


def refuse_to_write(*_arguments, **_options):
    raise OSError(28, "No space left on device")


def test_the_first_edit_of_a_tail_without_checkpoint_is_counted_once(tmp_path):
    with CheckpointStore(tmp_path) as store:
        assert store.edit(KEY, lambda _: at(1)).edits == 1


SHADOW, PARKED = TailKey("cases~2", "couch/cases"), TailKey("cases~1", "couch/cases")


def test_two_tails_exchange_their_checkpoints_and_histories_once(tmp_path):
    with CheckpointStore(tmp_path / "state") as store:
        store.save(KEY, at("9-live", saved_at=1.0))
        store.edit(SHADOW, lambda _: at("8-shadow", saved_at=2.0))
        for _ in range(2):
            store.exchange(KEY, shadow=SHADOW, parked=PARKED)
    with CheckpointStore(tmp_path / "state") as store:
        assert store.keys() == [KEY, PARKED]
        assert str(changed(store.get(KEY)).seq) == "8-shadow"
        assert changed(store.get(KEY)).edits == 1
        assert str(changed(store.get(PARKED)).seq) == "9-live"
        assert [str(entry.seq) for entry in store.history(KEY)] == ["8-shadow"]
        assert [str(entry.seq) for entry in store.history(PARKED)] == ["9-live"]
        store.exchange(KEY, shadow=PARKED, parked=SHADOW)
        assert store.keys() == [KEY, SHADOW]
        assert str(changed(store.get(KEY)).seq) == "9-live"


def test_a_forgotten_checkpoint_is_gone_for_good(tmp_path):
    with CheckpointStore(tmp_path / "state") as store:
        store.save(KEY, at("9-live"))
        store.save(SHADOW, at("8-shadow"))
        for _ in range(2):
            store.forget(SHADOW)
    with CheckpointStore(tmp_path / "state") as store:
        assert store.keys() == [KEY]
        assert store.history(SHADOW) == []
