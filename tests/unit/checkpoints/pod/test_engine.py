"""An open store, call by call: when it commits, what it refuses, and what a failure leaves."""

from __future__ import annotations

import logging
import threading
from typing import Any, ClassVar

import gevent
import pytest

from checkpoints.errors import IntegrityError, StoreClosed, StoreError, StoreWriteError
from checkpoints.files.directory import Directory
from checkpoints.pod.commit import Commit
from checkpoints.pod.engine import Settings, StoreEngine
from checkpoints.pod.metadata import StoreMetadata
from checkpoints.tracker.index import TaskIndex

MANUAL: dict[str, Any] = {"sync_at": None, "sync_interval": None, "file_size": 2}


@pytest.fixture
def opened(tmp_path):
    """Opens engines, and closes what a test leaves open."""
    engines = []

    def open_engine(hooks=None, **settings):
        chosen = Settings(**MANUAL | settings)
        directory = Directory(tmp_path) if chosen.readonly else Directory.open_locked(tmp_path)
        engines.append(StoreEngine(directory, chosen, hooks))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.discard()


def put(engine, *keys):
    engine.memory.put([(key, {}) for key in keys])


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name.endswith(".json")}


@pytest.fixture
def refusals(monkeypatch):
    """Refuses commits with the errors in it, one each."""
    errors = []
    execute = Commit.execute

    def maybe(self, directory):
        if errors:
            raise errors.pop(0)
        execute(self, directory)

    monkeypatch.setattr(Commit, "execute", maybe)
    return errors


def test_the_settings_of_a_store_that_says_nothing():
    assert Settings() == Settings(
        file_size=1000, gzipped=False, sync_at=100, sync_interval=5.0, durable=True, readonly=False
    )
    Settings(file_size=1)
    with pytest.raises(ValueError, match="at least 1"):
        Settings(file_size=0)


def test_the_kind_is_that_of_the_hooks(opened):
    assert opened().kind == "pod"
    with pytest.raises(StoreError):
        opened(TaskIndex(None))  # locked


def test_the_kind_of_a_tracker(opened):
    assert opened(TaskIndex(None)).kind == "tracker"


def test_a_sync_writes_everything_once(opened, commits, tmp_path):
    engine = opened()
    put(engine, "a", "b", "c")
    assert files(tmp_path) == {}
    engine.sync()
    assert files(tmp_path) == {"0.json": b'"a"\t{}\n"b"\t{}\n', "1.json": b'"c"\t{}\n'}
    engine.sync()
    assert len(commits) == 1


def test_a_sync_of_keys_writes_their_segments_alone(opened, tmp_path):
    engine = opened()
    put(engine, "a", "b", "c")
    engine.sync()
    engine.memory.put([("a", 1), ("c", 2)])
    engine.sync(["c"])
    assert files(tmp_path) == {"0.json": b'"a"\t{}\n"b"\t{}\n', "1.json": b'"c"\t2\n'}
    assert engine.memory.dirty == {"a"}
    put(engine, "d")
    engine.sync(["c"])  # the request of before does not count again
    assert files(tmp_path)["0.json"] == b'"a"\t{}\n"b"\t{}\n'
    engine.sync(iter(["a", "d"]))
    assert engine.memory.dirty == set()


def test_the_requests_of_two_callers_are_one_commit(opened, commits):
    engine = opened()
    put(engine, "a", "b", "c", "d", "e")
    engine.sync()
    commits.clear()
    engine.memory.put([("a", 1), ("c", 1), ("e", 1)])
    with engine._disk:
        callers = [gevent.spawn(engine.sync, [key]) for key in ("a", "c")]
        gevent.sleep(0.01)
    gevent.joinall(callers, raise_error=True, timeout=10)
    assert [sorted(commit.segments) for commit in commits] == [[0, 1]]
    assert engine.memory.dirty == {"e"}


def test_after_a_refusal_the_next_sync_writes_everything(opened, refusals, tmp_path):
    engine = opened()
    put(engine, "a", "b", "c")
    engine.sync()
    engine.memory.put([("a", 1), ("c", 1)])
    refusals.append(OSError(28, "No space left"))
    with pytest.raises(StoreWriteError, match="No space left"):
        engine.sync(["a"])
    assert engine.memory.dirty == {"a", "c"}
    engine.sync(["c"])
    assert engine.memory.dirty == set()
    assert files(tmp_path) == {"0.json": b'"a"\t1\n"b"\t{}\n', "1.json": b'"c"\t1\n'}


def test_what_interrupts_a_commit_reaches_the_caller_and_nothing_is_lost(opened, refusals, tmp_path):
    engine = opened()
    put(engine, "a")
    refusals.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        engine.sync()
    engine.close()
    assert files(tmp_path) == {"0.json": b'"a"\t{}\n'}


def test_metadata_is_written_when_it_is_asked_for(opened, commits):
    engine = opened()
    put(engine, "a")
    engine.sync()
    engine.rewrite_metadata()
    engine.sync()
    assert len(commits) == 2
    assert commits[1].before is not None
    assert not commits[1].segments


def test_nothing_is_written_by_a_reader(opened):
    engine = opened()
    put(engine, "a")
    engine.close()
    reader = opened(readonly=True)
    for call in (lambda: put(reader, "b"), reader.sync, reader.ensure_writable):
        with pytest.raises(StoreError, match="reading only"):
            call()
    reader.ensure_open()
    reader.close()
    assert reader.directory.closed


@pytest.mark.parametrize("end", [StoreEngine.close, StoreEngine.discard, StoreEngine.abandon])
def test_a_store_that_has_ended_says_so(opened, end):
    engine = opened()
    end(engine)
    for call in (
        engine.ensure_open,
        engine.ensure_writable,
        engine.sync,
        engine.revert,
        lambda: put(engine, "a"),
    ):
        with pytest.raises(StoreClosed):
            call()
    engine.close()


@pytest.mark.parametrize("call", ["sync", "revert"])
def test_who_waits_while_it_is_closed_is_told_so(opened, call):
    engine = opened()
    with engine._disk:
        waiting = gevent.spawn(getattr(engine, call))
        gevent.sleep(0.01)
        engine.directory.close()
    with pytest.raises(StoreClosed):
        waiting.get(timeout=10)


def test_closing_syncs_and_discarding_does_not(opened, tmp_path):
    engine = opened()
    put(engine, "a")
    engine.discard()
    assert files(tmp_path) == {}
    engine = opened()
    put(engine, "a")
    engine.close()
    assert list(files(tmp_path)) == ["0.json"]


def test_a_refused_close_leaves_it_open(opened, refusals):
    engine = opened()
    put(engine, "a")
    refusals.append(OSError(28, "No space left"))
    with pytest.raises(StoreWriteError):
        engine.close()
    engine.ensure_writable()
    engine.close()


def test_the_disk_is_not_waited_for_within_together(opened):
    engine = opened()
    put(engine, "a")
    for call in (engine.sync, engine.revert):
        with engine.memory.together(), pytest.raises(StoreError, match="inside together"):
            call()


def test_reverting_reads_the_disk_again(opened):
    engine = opened()
    put(engine, "a")
    engine.sync()
    put(engine, "b")
    engine.revert()
    assert len(engine.memory) == 1
    put(engine, "c")
    engine.sync()
    assert [key for _, key in engine.memory.after(-1, 9)] == ["a", "c"]


@pytest.mark.parametrize(("sync_at", "commits_after"), [(1, 3), (0, 3), (2, 1), (3, 1), (4, 0), (None, 0)])
def test_a_number_of_writes_makes_a_sync_due(opened, commits, sync_at, commits_after):
    engine = opened(sync_at=sync_at)
    for key in "abc":
        put(engine, key)
    assert len(commits) == commits_after


def test_held_syncs_are_made_up_for(opened, commits):
    engine = opened(sync_at=2)
    engine.hold()
    put(engine, "a", "b")
    assert commits == []
    engine.unhold()
    assert len(commits) == 1
    engine.unhold()
    assert len(commits) == 1


class Timer:
    """Runs when it is told to."""

    made: ClassVar[list[Timer]] = []
    daemon = False

    def __init__(self, seconds, call):
        self.seconds, self.run, self.state = seconds, call, "made"
        Timer.made.append(self)

    def start(self):
        self.state = "started" if self.daemon else "keeps the process alive"

    def cancel(self):
        self.state = "cancelled"


@pytest.fixture
def timers(monkeypatch):
    monkeypatch.setattr(Timer, "made", [])
    monkeypatch.setattr(threading, "Timer", Timer)
    return Timer.made


def test_one_timer_syncs_what_was_written_since(opened, commits, timers):
    engine = opened(sync_interval=7.0)
    assert timers == []
    put(engine, "a")
    put(engine, "b")
    [timer] = timers
    assert (timer.seconds, timer.state) == (7.0, "started")
    timer.run()
    assert len(commits) == 1
    assert len(timers) == 1
    put(engine, "c")
    assert len(timers) == 2
    engine.close()
    assert timers[1].state == "cancelled"


@pytest.mark.parametrize("idle", ["held", "synced", "closed"])
def test_a_timer_with_nothing_to_do_does_nothing(opened, commits, timers, idle):
    engine = opened(sync_interval=7.0)
    put(engine, "a")
    {"held": engine.hold, "synced": engine.sync, "closed": engine.discard}[idle]()
    before = len(commits)
    timers[0].run()
    assert (len(commits), len(timers)) == (before, 1)


def test_a_refused_sync_of_a_timer_is_logged_and_made_again(opened, refusals, timers, caplog):
    engine = opened(sync_interval=7.0)
    put(engine, "a")
    refusals.append(OSError(28, "No space left"))
    timers[0].run()
    assert "the sync is retried in 7.0 s" in caplog.text
    assert len(timers) == 2
    timers[1].run()
    assert engine.memory.dirty == set()


def test_a_store_that_is_closed_under_a_timer_is_left_alone(opened, timers, monkeypatch):
    engine = opened(sync_interval=7.0)
    put(engine, "a")

    def closed():
        raise StoreClosed

    monkeypatch.setattr(engine, "sync", closed)
    timers[0].run()
    assert len(timers) == 1


def test_no_timer_is_made_once_it_is_closed(opened, timers):
    engine = opened(sync_interval=7.0)
    engine.hold()
    put(engine, "a")
    engine.discard()
    engine.unhold()
    assert timers == []


def test_a_damaged_store_is_refused_and_a_repeated_key_is_said_and_mended(opened, tmp_path, caplog):
    (tmp_path / "0.json").write_bytes(b'"a"\t1\n"b"\t1\n')
    (tmp_path / "1.json").write_bytes(b'"a"\t2\n')
    with caplog.at_level(logging.WARNING):
        reader = opened(readonly=True)
    assert "0.json" in files(tmp_path)
    assert "is there before" in caplog.text
    assert files(tmp_path)["0.json"] == b'"a"\t1\n"b"\t1\n'
    reader.close()
    engine = opened()
    assert files(tmp_path) == {"0.json": b'"b"\t1\n', "1.json": b'"a"\t2\n'}
    engine.close()
    (tmp_path / "1.json").write_bytes(b"?\n")
    with pytest.raises(IntegrityError, match="no tab"):
        opened()


def test_a_tracker_is_no_pod_unless_it_is_empty(opened):
    engine = opened(TaskIndex(3))
    engine.rewrite_metadata()
    engine.close()
    opened().close()
    engine = opened(TaskIndex(3))
    put(engine, "a")
    engine.close()
    with pytest.raises(StoreError, match="of the kind 'tracker', not 'pod'"):
        opened()


def test_a_setting_that_has_changed_is_written_with_the_next_commit(opened, tmp_path):
    engine = opened(TaskIndex(3))
    put(engine, "a")
    engine.close()
    for max_tries, commits_more in ((3, 0), (5, 1)):
        before = (tmp_path / ".meta").stat().st_ino
        opened(TaskIndex(max_tries)).close()
        assert ((tmp_path / ".meta").stat().st_ino != before) == commits_more
    assert StoreMetadata.decode((tmp_path / ".meta").read_bytes()).settings == {"max_tries": 5}


def test_only_a_reader_reads_again_what_looks_damaged(opened, tmp_path, monkeypatch):
    (tmp_path / "0.json").write_bytes(b"?\n")
    reads = []
    read = Directory.read
    monkeypatch.setattr(Directory, "read", lambda *args: (reads.append(args[1]), read(*args))[1])
    counts = []
    for readonly in (True, False):
        with pytest.raises(IntegrityError):
            opened(readonly=readonly)
        counts.append(reads.count("0.json"))
        reads.clear()
    assert counts == [5, 1]


def test_a_removal_that_was_refused_is_made_by_the_next_sync(opened, refusals, tmp_path):
    engine = opened()
    put(engine, "a", "b", "c")
    engine.sync()
    engine.memory.remove("c")
    refusals.append(OSError(28, "No space left"))
    with pytest.raises(StoreWriteError):
        engine.sync()
    engine.sync(["a"])
    assert list(files(tmp_path)) == ["0.json"]
    assert engine.memory.dirty == set()


def test_after_a_refusal_metadata_promises_no_more_than_the_files_have(opened, refusals, tmp_path):
    engine = opened()
    put(engine, "a", "b")
    engine.sync()
    (tmp_path / ".meta").write_bytes(b"of the commit that was refused half-way")
    engine.memory.put([("a", 1)])
    refusals.append(OSError(28, "No space left"))
    with pytest.raises(StoreWriteError):
        engine.sync()
    engine.sync()
    assert StoreMetadata.decode((tmp_path / ".meta").read_bytes()).counts == (2,)
