"""An open journal: what is appended, what is written again, and what a refusal leaves."""

from __future__ import annotations

import json
from collections import Counter
from types import SimpleNamespace

import gevent
import pytest

from checkpoints import POD, StoreClosed, StoreError, StoreLocked, StoreWriteError
from checkpoints.files.directory import Directory
from checkpoints.files.fork_safety import register_for_fork
from checkpoints.journal import journal as module
from checkpoints.journal.journal import Journal
from checkpoints.journal.records import decode_value, format_snapshot, scan_journal

A, B = ("k", "a"), ("k", "b")


@pytest.fixture
def disk(monkeypatch):
    """Counts writes; refuses those whose names are in `refused`."""

    disk = SimpleNamespace(count=Counter(), refused=set())

    def wrap(name):
        real = getattr(Directory, name)

        def call(self, *arguments, **options):
            disk.count[name] += 1
            if name in disk.refused:
                raise OSError(28, "No space left on device")
            return real(self, *arguments, **options)

        monkeypatch.setattr(Directory, name, call)

    for name in ("append", "replace", "_fsync"):
        wrap(name)
    return disk


def on_disk(path):
    entries = scan_journal((path / "journal").read_bytes()).entries
    return {key[1]: decode_value(entry) for key, entry in entries.items()}


def value(journal, key):
    entry = journal.get(key)
    return None if entry is None else decode_value(entry)


def test_a_new_journal_writes_nothing_until_something_is_stored(tmp_path):
    Journal(tmp_path).close()
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]


def test_the_first_commit_makes_the_files_and_the_next_ones_append(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    assert disk.count == {}
    journal.sync()
    assert disk.count == {"replace": 2, "_fsync": 4}  # the journal, then .meta
    assert json.loads((tmp_path / ".meta").read_bytes()) == {"format": 2, "kind": "checkpoints"}
    disk.count.clear()
    journal.put({A: 2, B: 3})
    journal.sync()
    journal.put({B: 4})
    journal.sync()
    assert disk.count == {"append": 2, "_fsync": 2}
    assert on_disk(tmp_path) == {"a": 2, "b": 4}
    journal.close()


def test_a_sync_with_nothing_to_write_touches_nothing(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    disk.count.clear()
    journal.sync()
    assert disk.count == {}
    journal.close()
    assert disk.count == {}


def test_values_are_stored_all_or_none(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(TypeError):
        journal.put({A: 1, B: {1}})
    assert journal.keys() == []
    journal.close()


def test_closing_leaves_a_snapshot_without_commits(tmp_path):
    journal = Journal(tmp_path)
    for number in range(3):
        journal.put({A: number})
        journal.sync()
    journal.put({B: 3})
    journal.close()
    assert (tmp_path / "journal").read_bytes() == b"".join(format_snapshot([b'["k","a",2]', b'["k","b",3]']))
    again = Journal(tmp_path)
    assert (value(again, A), value(again, B)) == (2, 3)
    again.close()


def test_it_is_written_again_once_more_was_appended_than_the_snapshot_holds(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(module, "COMPACT_BYTES", 0)
    journal = Journal(tmp_path)
    journal.put({("k", str(number)): "x" * 100 for number in range(50)})
    journal.sync()
    disk.count.clear()
    for number in range(300):
        journal.put({("k", "0"): f"{number:100}"})
        journal.sync()
    # the snapshot's 50 lines and its head are over, and then the last commit that was still appended
    assert disk.count["replace"] == 300 // 52
    assert disk.count["append"] == 300 - 300 // 52
    assert (tmp_path / "journal").stat().st_size < 2 * 52 * 140
    journal.close()


def test_a_small_journal_is_appended_to_up_to_its_least_size(tmp_path, disk, monkeypatch):
    monkeypatch.setattr(module, "COMPACT_BYTES", 1000)
    journal = Journal(tmp_path)
    journal.put({A: 0})
    journal.sync()
    disk.count.clear()
    lines = 0
    while not disk.count["replace"]:
        journal.put({A: "x" * 76})  # a line of 100 bytes
        journal.sync()
        lines += 1
    assert lines == 12  # up to 1,000 bytes, one more that goes beyond, and the one that is written anew
    journal.close()


def test_a_reopened_journal_knows_how_much_was_appended(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    journal.put({A: 2})
    journal.sync()
    sizes = journal._snapshot_bytes, journal._appended_bytes
    assert sum(sizes) == (tmp_path / "journal").stat().st_size
    journal._directory.close()  # killed
    again = Journal(tmp_path)
    assert (again._snapshot_bytes, again._appended_bytes) == sizes
    again.close()


def test_a_refused_commit_is_said_and_the_next_writes_the_whole_file(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    disk.refused = {"append"}
    journal.put({A: 2})
    with pytest.raises(StoreWriteError, match=rf"cannot write {tmp_path}/journal: .*No space left"):
        journal.sync()
    assert value(journal, A) == 2
    disk.count.clear()
    journal.put({B: 3})
    journal.sync()
    assert (disk.count["append"], disk.count["replace"]) == (0, 1)
    assert on_disk(tmp_path) == {"a": 2, "b": 3}
    journal.close()


def test_a_failed_fsync_counts_as_nothing_written(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    disk.refused = {"_fsync"}
    journal.put({A: 2})
    for _ in range(2):
        with pytest.raises(StoreWriteError):
            journal.sync()
    disk.refused = set()
    disk.count.clear()
    journal.sync()
    assert disk.count == {"replace": 1, "_fsync": 2}
    journal.close()


def test_all_who_wait_for_a_refused_commit_are_told(tmp_path, disk, slow_disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    slow_disk(0.02)
    disk.refused = {"append", "replace"}
    journal.put({A: 2})
    syncs = [gevent.spawn(journal.sync) for _ in range(3)]
    gevent.joinall(syncs)
    assert [type(sync.exception) for sync in syncs] == [StoreWriteError] * 3
    disk.refused = set()
    journal.close()
    assert on_disk(tmp_path) == {"a": 2}


def test_a_sync_of_another_covers_what_was_stored_before_it_began(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    disk.count.clear()
    journal.put({A: 2})
    first = gevent.spawn(journal.sync)
    gevent.sleep(0)
    journal.put({B: 3})
    others = [gevent.spawn(journal.sync) for _ in range(5)]
    gevent.joinall([first, *others], raise_error=True)
    assert disk.count["append"] <= 2
    assert on_disk(tmp_path) == {"a": 2, "b": 3}
    journal.close()


def test_a_greenlet_that_is_killed_while_it_syncs_leaves_the_journal_in_order(tmp_path, slow_disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    slow_disk(0.05)
    journal.put({A: 2})
    killed = gevent.spawn(journal.sync)
    gevent.sleep(0.01)
    killed.kill()
    journal.put({B: 3})
    journal.sync()
    assert on_disk(tmp_path) == {"a": 2, "b": 3}
    journal.close()


def test_a_removed_entry_is_not_on_disk_after_the_next_commit(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1, B: 2})
    journal.sync()
    disk.count.clear()
    before = journal.get(A)
    journal.restore({A: before, B: None})
    journal.sync()
    assert (disk.count["append"], disk.count["replace"]) == (0, 1)
    assert on_disk(tmp_path) == {"a": 1}
    assert (value(journal, A), value(journal, B)) == (1, None)
    journal.close()


def test_a_close_that_is_refused_leaves_it_open(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    disk.refused = {"replace"}
    with pytest.raises(StoreWriteError):
        journal.close()
    assert value(journal, A) == 1
    with pytest.raises(StoreLocked):
        Journal(tmp_path)
    disk.refused = set()
    journal.close()
    assert on_disk(tmp_path) == {"a": 1}


def test_a_disk_that_refuses_only_the_snapshot_at_the_end_is_no_failure(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    journal.put({A: 2})
    journal.sync()
    disk.refused = {"replace"}
    journal.close()
    assert on_disk(tmp_path) == {"a": 2}
    with pytest.raises(StoreClosed):
        journal.get(A)


def test_a_reader_sees_what_was_synced_and_cannot_write(tmp_path):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    journal.put({A: 2})
    reader = Journal(tmp_path, readonly=True)
    assert value(reader, A) == 1
    for refused in (reader.sync, lambda: reader.put({A: 3})):
        with pytest.raises(StoreError, match="open for reading only"):
            refused()
    reader.close()
    journal.close()


def test_a_directory_that_is_missing_is_made_by_its_owner_alone(tmp_path):
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "x" / "y", readonly=True)
    Journal(tmp_path / "x" / "y").close()
    assert (tmp_path / "x" / "y").is_dir()


def test_temporary_files_of_a_crash_are_removed(tmp_path):
    (tmp_path / "journal.tmp-77").write_bytes(b"x")
    Journal(tmp_path).close()
    assert not (tmp_path / "journal.tmp-77").exists()


def test_a_directory_that_was_removed_is_not_written_into(tmp_path):
    path = tmp_path / "x"
    journal = Journal(path)
    journal.put({A: 1})
    journal.sync()
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    journal.put({A: 2})
    with pytest.raises(StoreWriteError):
        journal.sync()
    journal._directory.close()


def test_a_store_of_another_kind_is_refused_and_stays_free(tmp_path):
    with POD(tmp_path, {"a": 1}):
        pass
    with pytest.raises(StoreError, match="of the kind 'pod', not 'checkpoints'"):
        Journal(tmp_path)
    with POD(tmp_path) as pod:
        assert dict(pod) == {"a": 1}


def test_a_small_journal_is_not_written_again_for_each_commit(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    disk.count.clear()
    for number in range(50):
        journal.put({A: number})
        journal.sync()
    assert disk.count["replace"] == 0
    journal.close()


@pytest.mark.parametrize("end", [Journal.close, Journal.abandon])
def test_a_journal_that_has_ended_says_so(tmp_path, end):
    journal = Journal(tmp_path)
    end(journal)
    for call in (journal.keys, lambda: journal.get(A), lambda: journal.put({A: 1}), journal.sync):
        with pytest.raises(StoreClosed):
            call()


def test_a_sync_that_waits_while_it_is_closed_says_so(tmp_path):
    journal = Journal(tmp_path)
    with journal._disk:
        waiting = gevent.spawn(journal.sync)
        gevent.sleep(0.01)
        journal._directory.close()
    with pytest.raises(StoreClosed):
        waiting.get(timeout=10)


def test_what_a_refused_sync_left_is_not_lost_in_silence_by_closing(tmp_path, disk):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    journal.sync()
    disk.refused = {"append", "replace"}
    journal.put({A: 2})
    for call in (journal.sync, journal.close):
        with pytest.raises(StoreWriteError):
            call()
    disk.refused = set()
    journal.close()
    assert on_disk(tmp_path) == {"a": 2}


def test_what_interrupts_a_commit_reaches_the_caller(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.put({A: 1})
    monkeypatch.setattr(Directory, "replace", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        journal.sync()
    monkeypatch.undo()
    journal.close()
    assert on_disk(tmp_path) == {"a": 1}


def test_a_forked_child_lets_the_journal_go(tmp_path):
    journal = Journal(tmp_path)
    assert journal in register_for_fork.__self__._watched  # type: ignore[attr-defined]
    journal.close()
