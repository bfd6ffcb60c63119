"""A store when the disk refuses a call, and when the process is killed."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
from typing import Any

import gevent
import pytest

from checkpoints import POD, SharedPOD, StoreWriteError, check
from checkpoints.files.directory import Directory
from tests.support.sizes import size
from tests.unit.checkpoints.scripts import run

PRIMITIVES = ("_put", "_fsync", "_rename", "_unlink")
KINDS = ("ENOSPC", "EIO", "short write")


class Faults:
    """Lets the disk fail at the next operation, or a later one, for a while."""

    def __init__(self, monkeypatch):
        self.done = 0
        self._failing = range(0)
        self._kind = ""
        for name in PRIMITIVES:
            monkeypatch.setattr(Directory, name, self._wrapped(name, getattr(Directory, name)))

    def fail(self, kind, *, after=0, times=1):
        self._kind = kind
        self._failing = range(self.done + after, self.done + after + times)

    def _wrapped(self, name, real):
        def primitive(directory, *arguments):
            at, self.done = self.done, self.done + 1
            if at not in self._failing:
                return real(directory, *arguments)
            if name == "_put" and self._kind == "short write":
                fd, data = arguments
                os.write(fd, data[: len(data) // 2])
            code = errno.EIO if self._kind == "EIO" else errno.ENOSPC
            raise OSError(code, os.strerror(code))

        return primitive


@pytest.fixture
def faults(monkeypatch):
    return Faults(monkeypatch)


def stored(path):
    with POD(path, readonly=True) as pod:
        return dict(pod)


def crashed(path, into):
    """Returns the store as the next process finds it if this one is killed now."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(path, into)
    assert [finding for finding in check(into) if not finding.harmless] == []
    with POD(into) as pod:
        return dict(pod)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", range(3))
def test_a_refused_write_is_said_loses_nothing_and_is_made_good(tmp_path, faults, kind, after):
    path = tmp_path / "x"
    with POD(path, {"a": 1}, sync_interval=None) as pod:
        pod.sync()
        before = (path / "0.json").read_bytes()
        pod["a"] = 2
        faults.fail(kind, after=after)  # at the write, the fsync, the rename
        with pytest.raises(StoreWriteError, match=str(path)):
            pod.sync()
        assert pod.dirty() == {"a"}
        assert pod["a"] == 2
        assert (path / "0.json").read_bytes() == before
        assert not list(path.glob("*.tmp-*"))
        assert crashed(path, tmp_path / "copy") == {"a": 1}
        pod.sync()
        assert pod.dirty() == set()
    assert stored(path) == {"a": 2}


def test_an_automatic_sync_that_is_refused_is_said_to_who_writes(tmp_path, faults):
    with POD(tmp_path, sync_at=2, sync_interval=None) as pod:
        pod["a"] = 1
        faults.fail("ENOSPC", times=1000)
        for _ in range(3):
            with pytest.raises(StoreWriteError):
                pod["a"] = 2
        assert pod["a"] == 2
        faults.fail("", times=0)
        pod["b"] = 1
        assert stored(tmp_path) == {"a": 2, "b": 1}


def test_the_timer_says_so_and_tries_again(tmp_path, faults, caplog):
    with POD(tmp_path, sync_interval=0.02) as pod, caplog.at_level(logging.ERROR):
        faults.fail("ENOSPC", times=1000)
        pod["a"] = 1
        with gevent.Timeout(60):
            while "No space left" not in caplog.text:
                gevent.sleep(0.01)
            faults.fail("", times=0)
            while pod.dirty():
                gevent.sleep(0.01)
        assert stored(tmp_path) == {"a": 1}


def test_those_who_wait_for_a_commit_that_fails_are_told_too(tmp_path, faults, slow_disk):
    with POD(tmp_path, {"a": 0}, sync_interval=None, file_size=1) as pod:
        pod.sync()
        slow_disk(0.02)
        pod.update(a=1, b=1)
        faults.fail("EIO", times=1000)
        syncs = [gevent.spawn(pod.sync) for _ in range(3)]
        gevent.joinall(syncs)
        assert [type(sync.exception) for sync in syncs] == [StoreWriteError] * 3
        faults.fail("", times=0)


def test_a_close_that_is_refused_leaves_the_store_open(tmp_path, faults):
    pod = POD(tmp_path, {"a": 1})
    faults.fail("ENOSPC", times=1000)
    with pytest.raises(StoreWriteError):
        pod.close()
    assert pod["a"] == 1
    faults.fail("", times=0)
    pod.close()
    assert stored(tmp_path) == {"a": 1}


def test_a_shared_store_that_could_not_be_closed_is_closed_again(tmp_path, faults):
    shared = SharedPOD(tmp_path, {"a": 1})
    faults.fail("ENOSPC", times=1000)
    for _ in range(2):
        with pytest.raises(StoreWriteError):
            shared.close()
    faults.fail("", times=0)
    shared.close()
    shared.close()
    assert stored(tmp_path) == {"a": 1}
    with POD(tmp_path, durable=False):  # with other settings: nobody has it any more
        pass


def test_who_is_refused_by_the_disk_at_his_init_does_not_have_the_store(tmp_path, faults):
    faults.fail("ENOSPC", times=1000)
    with pytest.raises(StoreWriteError):
        POD(tmp_path, {"a": 1}, sync_at=1)
    faults.fail("", times=0)
    with POD(tmp_path, durable=False) as pod:
        assert dict(pod) == {}


def test_a_value_that_cannot_be_written_is_said_each_time_and_nothing_is_lost(tmp_path):
    with POD(tmp_path, {"a": {}, "b": 0}, sync_at=None, sync_interval=None) as pod:
        pod.sync()
        value = pod["a"]
        dict.__setitem__(value, "x", object())  # behind its back
        value["y"] = 1
        pod["b"] = 1
        for sync in (pod.sync, lambda: pod.sync_key("b"), pod.sync):
            with pytest.raises(TypeError, match="'a' cannot be stored"):
                sync()
        assert pod.dirty() == {"a", "b"}
        dict.__delitem__(value, "x")
        assert stored(tmp_path) == {"a": {}, "b": 0}
        pod.sync()
        assert stored(tmp_path) == {"a": {"y": 1}, "b": 1}


def test_a_full_file_system_is_no_success(tmp_path):
    """A real limit stands for the full file system: no file may be longer than 4 kB."""
    script = """
import resource, signal, sys
from checkpoints import POD, StoreWriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
pod = POD(sys.argv[1], {"a": "x" * 2000})
pod.sync()
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
pod["b"] = "x" * 5000
try:
    pod.sync()
except StoreWriteError as error:
    print(sorted(pod.dirty()), sorted(POD(sys.argv[1], readonly=True)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
pod.close()
print(sorted(POD(sys.argv[1], readonly=True)))
"""
    assert run(script, tmp_path).splitlines() == ["['b'] ['a']", "['a', 'b']"]


def write_at_random(pod, random, number):
    """One of the things that a program does to a store."""
    key = f"k{random.randrange(12)}"
    match random.randrange(6):
        case 0:
            pod.pop(key, None)
        case 1:
            pod[key] = {"n": [number]}
        case 2 if isinstance(pod.get(key), dict):
            pod[key]["n"].append(number)
        case 3:
            pod.update({key: number, f"t{number}": "x" * random.randrange(200)})
        case 4:
            pod.pop(f"t{random.randrange(number + 1)}", None)
        case _:
            pod[key] = number


@pytest.mark.parametrize("rounds", [20, pytest.param(500, marks=pytest.mark.proof)])
@pytest.mark.timeout(600)
def test_a_fault_at_any_write_fsync_or_rename_loses_nothing_that_was_synced(tmp_path, faults, rounds):
    """Each round: random changes, a fault somewhere in the sync; what a crash then leaves is whole."""
    luck = random.Random(rounds)
    hit = 0
    for number in range(rounds):
        path = tmp_path / f"x{number}"
        settings: dict[str, Any] = {"file_size": luck.choice([1, 2, 3, 1000]), "gzipped": luck.random() < 0.2}
        with POD(path, sync_at=None, sync_interval=None, **settings) as pod:
            for step in range(luck.randrange(60)):
                write_at_random(pod, luck, step)
            pod.sync()
            synced = {key: repr(value) for key, value in pod.items()}
            gone: set[object] = set()  # for a while: added again it stands elsewhere
            for step in range(luck.randrange(1, 60)):
                write_at_random(pod, luck, 100 + step)
                gone |= {key for key in synced if key not in pod}
            wanted = {key: repr(value) for key, value in pod.items()}
            faults.fail(luck.choice(KINDS), after=luck.randrange(12), times=luck.choice([1, 1, 5]))
            try:
                pod.sync()
            except StoreWriteError:
                hit += 1
                assert {key for key in wanted if wanted[key] != synced.get(key)} <= pod.dirty()
            faults.fail("", times=0)
            found = {key: repr(value) for key, value in crashed(path, tmp_path / "copy").items()}
            for key in synced.keys() | wanted.keys() | found.keys():
                possible = {synced.get(key), wanted.get(key)} | ({None} if key in gone else set())
                assert found.get(key) in possible
            pod.sync()
        assert {key: repr(value) for key, value in stored(path).items()} == wanted
        shutil.rmtree(path)
    assert hit > rounds / 3


KILLED = """
import json, os, random, select, signal, sys, time
from checkpoints import POD, check
from tests.support.sizes import size

def write(path, settings, seed, acknowledge):
    luck = random.Random(seed)
    with POD(path, sync_interval=None, **settings) as pod:
        number = max([value["n"] for value in pod.values()], default=0)
        os.write(acknowledge, number.to_bytes(8, "big"))
        while True:
            number += 1
            pod[f"k{number % 20}"] = {"n": number, "pad": "x" * luck.randrange(300)}
            pod[f"t{number}"] = {"n": number}
            pod.pop(f"t{number - 30}", None)
            if luck.random() < 0.3:
                pod[f"k{number % 20}"]["pad"] += "y"
            if number % 5 == 0:
                pod.sync()
                os.write(acknowledge, number.to_bytes(8, "big"))

def acknowledged(fd):
    data = b""
    while chunk := os.read(fd, 65536):
        data += chunk
    return int.from_bytes(data[:8], "big"), int.from_bytes(data[-8:], "big")

luck = random.Random(sys.argv[2])
kills, total = int(sys.argv[2]), 0
for attempt in range(kills):
    path = f"{sys.argv[1]}/{attempt // 5}"           # five lives a store
    settings = [
        {"sync_at": None},
        {"sync_at": 3, "file_size": 3},
        {"file_size": 1},
        {"file_size": 7, "gzipped": True},
    ][attempt // 5 % 4]
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            write(path, settings, attempt, writer)
        finally:
            os._exit(1)                              # it is only ever killed
    os.close(writer)
    select.select([reader], [], [], 60)              # it has begun
    time.sleep(luck.random() * 0.08)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    first, last = acknowledged(reader)               # this life's numbers: from, to
    os.close(reader)
    total += last - first
    harm = [str(finding) for finding in check(path) if not finding.harmless]
    assert not harm, harm
    with POD(path, sync_interval=None, **settings) as pod:
        for key, value in pod.items():
            assert set(value) <= {"n", "pad"} and value["n"] >= 1, (key, value)
        for number in range(max(first + 1, last - 19), last + 1):
            assert pod[f"k{number % 20}"]["n"] >= number, (attempt, last, number)
        for number in range(max(first + 1, last - 18), last + 1):
            assert pod[f"t{number}"] == {"n": number}, (attempt, last, number)
        for number in range(max(first + 1, last - 200), last - 29):
            assert f"t{number}" not in pod, (attempt, last, number)
print("kills", kills, "writes", total)
"""


@pytest.mark.parametrize("kills", [20, pytest.param(500, marks=pytest.mark.proof)])
@pytest.mark.timeout(600)
def test_a_busy_writer_that_is_killed_leaves_a_whole_store_with_all_that_was_synced(tmp_path, kills):
    """kill -9 at random moments: each reopen succeeds, each key is no older than its last sync."""
    kind, count, _, writes = run(KILLED, tmp_path, kills, timeout=600).split()
    assert (kind, int(count)) == ("kills", kills)
    assert int(writes) > size(ci=0, proof=kills)
