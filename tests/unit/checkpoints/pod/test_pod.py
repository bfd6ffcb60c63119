"""POD: when it writes, what in-place changes do, who may open it, how it behaves among threads."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import signal
import threading
import time

import gevent
import pytest

from checkpoints import POD, PersistentOrderedDict, StoreClosed, StoreError, StoreLocked, Tracker
from checkpoints.files.directory import Directory
from checkpoints.pod.memtable import MemTable
from tests.support.sizes import size
from tests.unit.checkpoints.scripts import run, start


def stored(path):
    with POD(path, readonly=True) as pod:
        return dict(pod)


def mtimes(path):
    return {file.name: file.stat().st_mtime_ns for file in path.iterdir()}


def test_the_long_name_is_the_same_class():
    assert PersistentOrderedDict is POD


def test_what_was_closed_is_there_in_a_new_process(tmp_path):
    value = {"seq": "42-g1AAAA", "n": [1, 2.5, None, True, "é"], "big": 2**80}
    with POD(tmp_path) as pod:
        pod["couch:orders"] = value
    script = "import sys, json; from checkpoints import POD; print(json.dumps(dict(POD(sys.argv[1]))))"
    assert json.loads(run(script, tmp_path)) == {"couch:orders": value}


@pytest.mark.parametrize("writes", [5_000, pytest.param(200_000, marks=pytest.mark.proof)])
def test_counts_writes_not_keys(tmp_path, writes, commits):
    """The default of the dictionary that this grew from never wrote a store of 8 keys."""
    with POD(tmp_path) as pod:
        for number in range(writes):
            pod[f"pillow {number % 8}"] = number
        assert len(commits) >= writes // 100
        assert min(stored(tmp_path).values()) >= writes - 100 - 8


def test_one_write_is_on_disk_after_the_interval_without_another_call(tmp_path):
    with POD(tmp_path, sync_interval=0.1) as pod:
        late = []
        for attempt in range(3):
            pod["a"] = attempt
            began = time.monotonic()
            while stored(tmp_path) != {"a": attempt} or pod.dirty():  # files first, then its memory
                assert time.monotonic() - began < 60
                gevent.sleep(0.01)
            late.append(time.monotonic() - began)
        assert 0.05 < min(late) < size(ci=20, proof=0.6)


def test_the_timer_works_in_a_plain_script(tmp_path):
    script = """
import sys, time
from checkpoints import POD
pod = POD(sys.argv[1], sync_interval=0.05)
pod["a"] = 1
deadline = time.monotonic() + 60
while pod.dirty() and time.monotonic() < deadline:
    time.sleep(0.01)
print(dict(POD(sys.argv[1], readonly=True)), "gevent" in sys.modules)
"""
    assert run(script, tmp_path) == "{'a': 1} False\n"


def test_reading_never_marks_dirty_and_never_writes(tmp_path):
    with POD(tmp_path, {f"k{number}": {"list": [number]} for number in range(300)}) as pod:
        pod.sync()
        before = mtimes(tmp_path)
        for key, value in pod.items():
            assert key in pod
            assert pod[key] == pod.get(key) == value
            assert value["list"][0] >= 0
            assert "x" not in value
            assert [*value.items()]
        assert len(list(pod.values())) == len(pod) == 300
        assert pod.dirty() == set()
        pod.sync()
        assert mtimes(tmp_path) == before
    assert mtimes(tmp_path) == before


def test_changes_in_place_are_persisted_by_keying(tmp_path):
    with POD(tmp_path) as pod:
        pod["k"] = []
        pod["k"].append(1)
        pod["d"] = {"a": 1, "deep": {"er": []}}
        pod["d"]["a"] += 1
        pod["d"]["deep"]["er"] += [{"x": 1}]
        pod["d"]["deep"]["er"][0]["x"] = 2
    assert stored(tmp_path) == {"k": [1], "d": {"a": 2, "deep": {"er": [{"x": 2}]}}}


def test_what_setdefault_gives_is_persisted_as_well(tmp_path):
    with POD(tmp_path) as pod:
        pod.setdefault("k", []).append(1)
        pod.setdefault("k", ["other"]).append(2)
    assert stored(tmp_path) == {"k": [1, 2]}


def test_a_value_that_grows_through_kept_references_is_nested_100_deep_at_most(tmp_path):
    with POD(tmp_path) as pod:
        pod["k"] = {}
        part = pod["k"]
        for _ in range(99):
            part["x"] = {}
            part = part["x"]
        for grow in (lambda: part.update(x={}), lambda: part.setdefault("x", [])):
            with pytest.raises(ValueError, match="'k' cannot be stored: it is nested more than 100 deep"):
                grow()
        part["x"] = 1
    assert json.dumps(stored(tmp_path)["k"]).count("{") == 100


def test_a_live_value_among_others_of_its_key_counts_where_it_stands(tmp_path):
    with POD(tmp_path, {"a": {"n": 1}, "b": {"n": 2}}) as pod:
        a, b = pod["a"], pod["b"]
        pod.update([("new", 1), ("a", 5), ("a", a), ("b", b), ("b", 5), ("new", 2)])
        a["n"] += 2
        assert list(pod.items()) == [("a", {"n": 3}), ("b", 5), ("new", 2)]
    assert stored(tmp_path) == {"a": {"n": 3}, "b": 5, "new": 2}


def test_changes_through_a_kept_reference_are_persisted(tmp_path):
    with POD(tmp_path) as pod:
        pod["k"] = {"list": [1], "dict": {}}
        whole, part = pod["k"], pod["k"]["list"]
        pod.sync()
        part.append(2)
        assert pod.dirty() == {"k"}
        pod.sync()
        pod["k"]["list"] += [3]
        part.append(4)
        whole["dict"]["x"] = 1
        assert pod["k"] is whole
    assert stored(tmp_path) == {"k": {"list": [1, 2, 3, 4], "dict": {"x": 1}}}


CHANGES = {
    "dict []=": lambda d, _: d.__setitem__("n", (1,)),
    "dict []= int name": lambda d, _: d.__setitem__(7, 1),
    "dict del": lambda d, _: d.__delitem__("a"),
    "dict pop": lambda d, _: d.pop("a"),
    "dict popitem": lambda d, _: d.popitem(),
    "dict clear": lambda d, _: d.clear(),
    "dict update": lambda d, _: d.update({"u": [1]}, v=2),
    "dict |=": lambda d, _: d.__ior__({"w": {}}),
    "dict setdefault": lambda d, _: d.setdefault("s", []).append(1),
    "list []=": lambda _, x: x.__setitem__(0, {"y": 1}),
    "list [:]=": lambda _, x: x.__setitem__(slice(0, 2), [9]),
    "list del": lambda _, x: x.__delitem__(slice(0, 2)),
    "list append": lambda _, x: x.append((1, 2)),
    "list extend": lambda _, x: x.extend(iter([[1]])),
    "list +=": lambda _, x: x.__iadd__([5]),
    "list *=": lambda _, x: x.__imul__(2),
    "list *= 0": lambda _, x: x.__imul__(0),
    "list insert": lambda _, x: x.insert(0, {}),
    "list pop": lambda _, x: x.pop(),
    "list remove": lambda _, x: x.remove(1),
    "list clear": lambda _, x: x.clear(),
    "list sort": lambda _, x: x.sort(reverse=True),
    "list reverse": lambda _, x: x.reverse(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_way_to_change_a_value_is_noticed(tmp_path, change):
    plain = {"a": 1, "list": [1, 2, 3]}
    with POD(tmp_path) as pod:
        pod["k"] = plain
        pod.sync()
        change(pod["k"], pod["k"]["list"])
        change(plain, plain["list"])
        assert pod.dirty() == {"k"}
        assert pod["k"] == json.loads(json.dumps(plain))
    assert stored(tmp_path) == {"k": json.loads(json.dumps(plain))}


def test_what_comes_out_is_like_any_dict_and_list(tmp_path):
    with POD(tmp_path, {"k": {"list": [1, {"x": 2}]}}) as pod:
        value = pod["k"]
        plain = {"list": [1, {"x": 2}]}
        assert value == plain
        assert isinstance(value, dict)
        assert isinstance(value["list"], list)
        assert (json.dumps(value), repr(value)) == (json.dumps(plain), repr(plain))
        for copied in (
            copy.copy(value),
            copy.deepcopy(value),
            pickle.loads(pickle.dumps(value)),
            value.copy(),
        ):
            assert copied == plain
            assert type(copied) is dict
            copied["new"] = 1
        assert type(copy.copy(value["list"])) is type(value["list"].copy()) is list
        assert pod["k"] == plain


def test_a_value_that_was_replaced_is_nobodys(tmp_path):
    with POD(tmp_path) as pod:
        pod["k"] = {"n": 1}
        old = pod["k"]
        pod["k"] = {"n": 2}
        old["n"] = 3
        removed = pod["k"]
        del pod["k"]
        removed["n"] = 4
        assert dict(pod) == {}
        pod["k"] = {"n": 5}
        pod.sync()
        reverted = pod["k"]
        pod.revert()
        reverted["n"] = 6
        assert dict(pod) == {"k": {"n": 5}}


def test_a_value_that_cannot_be_stored_is_refused_deep_inside_too(tmp_path):
    with POD(tmp_path, {"k": {"list": []}}) as pod:
        with pytest.raises(TypeError, match="'k'"):
            pod["k"]["list"].append(object())
        with pytest.raises(ValueError, match="'k'"):
            pod["k"].update(fine=1, bad=float("nan"))
        pod["k"]["list"].append(pod["k"])
        assert pod["k"] == {"list": [{"list": []}]}


def test_a_value_that_nobody_holds_takes_no_memory(tmp_path):
    with POD(tmp_path, {f"k{number}": {"n": number} for number in range(100)}) as pod:
        assert sum(value["n"] for value in pod.values()) == 4950
        assert len(pod._engine.memory._live) <= 1


def test_sync_key_writes_only_the_file_of_the_key(tmp_path):
    with POD(tmp_path, file_size=2, sync_at=None) as pod:
        pod.update(a=1, b=1, c=1, d=1, e=1)
        pod.sync()
        before = mtimes(tmp_path)
        pod.update(a=2, c=2, e=2)
        pod.sync_key("c")
        changed = {name for name, at in mtimes(tmp_path).items() if before.get(name) != at}
        assert changed == {"1.json"}
        assert pod.dirty() == {"a", "e"}
        assert stored(tmp_path) == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 1}


def test_sync_key_of_a_new_key_leaves_no_gap_before_it(tmp_path):
    with POD(tmp_path, file_size=2, sync_at=None) as pod:
        pod.update(a=1, b=1, c=1, d=1, e=1)
        pod.sync_key("e")
        assert stored(tmp_path) == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}


def test_hold_keeps_5000_writes_in_memory_and_unhold_syncs_if_due(tmp_path):
    with POD(tmp_path, {"a": 0}, sync_interval=0.05) as pod:
        pod.sync()
        before = mtimes(tmp_path)
        pod.hold()
        for number in range(5000):
            pod[f"k{number % 100}"] = number
        gevent.sleep(0.2)
        assert mtimes(tmp_path) == before
        pod.unhold()
        assert len(stored(tmp_path)) == 101


def test_unhold_below_the_threshold_leaves_it_to_the_timer(tmp_path):
    with POD(tmp_path, sync_interval=0.5) as pod:
        pod.hold()
        pod["a"] = 1
        pod.unhold()
        assert pod.dirty() == {"a"}
        deadline = time.monotonic() + 60
        while pod.dirty() and time.monotonic() < deadline:
            gevent.sleep(0.01)
        assert stored(tmp_path) == {"a": 1}


def test_an_explicit_sync_works_while_it_is_held(tmp_path):
    with POD(tmp_path) as pod:
        pod.hold()
        pod["a"] = 1
        pod.sync()
        assert stored(tmp_path) == {"a": 1}


def test_init_never_overwrites_unless_it_is_told_to(tmp_path):
    with POD(tmp_path, {"a": 1}) as pod:
        pod["a"] = 2
    with POD(tmp_path, {"a": 1, "b": 1}) as pod:
        assert dict(pod) == {"a": 2, "b": 1}
    with POD(tmp_path, [("a", 3)], overwrite=True) as pod:
        assert dict(pod) == {"a": 3, "b": 1}


def is_free(path):
    """Whether nobody has a store open for writing, this process neither."""
    directory = Directory(path)
    try:
        directory.lock()
    except StoreLocked:
        return False
    finally:
        directory.close()
    return True


@pytest.mark.parametrize("kind", [POD, Tracker])
def test_who_is_refused_for_his_init_does_not_have_the_store(tmp_path, kind):
    with pytest.raises(TypeError):
        kind(tmp_path, init={"a": {}, "b": object()})
    assert is_free(tmp_path)
    with kind(tmp_path) as store:
        with pytest.raises(TypeError):
            kind(tmp_path, init={"a": {}, "b": object()})
        assert dict(store) == {}
        assert not is_free(tmp_path)
    assert is_free(tmp_path)


def test_a_reader_that_is_refused_for_its_init_harms_nobody(tmp_path):
    with POD(tmp_path, {"a": 1}) as pod:
        pod.sync()
        with pytest.raises(StoreError, match="for reading only"):
            POD(tmp_path, {"b": 1}, readonly=True)
        pod["a"] = 2
    assert stored(tmp_path) == {"a": 2}


def test_a_path_is_one_store_in_a_process(tmp_path):
    with POD(tmp_path / "x") as one, POD(tmp_path / "y" / ".." / "x") as other:
        one["a"] = [1]
        other["a"].append(2)
        assert one["a"] is other["a"]
        one.close()
        other["b"] = 1
        with pytest.raises(StoreClosed):
            one["a"]
    assert stored(tmp_path / "x") == {"a": [1, 2], "b": 1}


@pytest.mark.parametrize("other", [{"file_size": 7}, {"gzipped": True}, {"sync_at": 1}, {"durable": False}])
def test_conflicting_settings_are_a_value_error(tmp_path, other):
    with POD(tmp_path) as pod:
        with pytest.raises(ValueError, match="is already open as a pod"):
            POD(tmp_path, **other)
        pod["a"] = 1
    with POD(tmp_path, **other) as pod:
        assert dict(pod) == {"a": 1}


def test_a_store_that_was_removed_is_no_ghost(tmp_path):
    old = POD(tmp_path / "x", {"a": 1})
    old.sync()
    shutil.rmtree(tmp_path / "x")
    with POD(tmp_path / "x") as new:
        assert dict(new) == {}
        new["b"] = 1
        with pytest.raises(StoreClosed):
            old["a"] = 2
    old.close()
    assert stored(tmp_path / "x") == {"b": 1}


def test_a_second_process_is_refused_with_the_holders_pid_and_may_read(tmp_path):
    script = """
import sys, time
from checkpoints import POD, StoreError, StoreLocked
with POD(sys.argv[1], readonly=True) as pod:
    print(dict(pod))
    try:
        pod["a"] = 2
    except StoreError as error:
        print(error)
began = time.monotonic()
try:
    POD(sys.argv[1])
except StoreLocked as error:
    print(error, time.monotonic() - began < float(sys.argv[2]))
"""
    with POD(tmp_path, {"a": 1}) as pod:
        pod.sync()
        lines = run(script, tmp_path, size(ci=30, proof=1)).splitlines()
    assert lines[0] == "{'a': 1}"
    assert lines[1].endswith("is open for reading only")
    assert lines[2] == f"{tmp_path} is open for writing in process {os.getpid()} True"
    with POD(tmp_path):
        pass  # nobody has it any more


def test_a_reader_beside_a_busy_writer_always_sees_a_whole_store(tmp_path):
    script = """
import sys
from checkpoints import POD
for _ in range(int(sys.argv[2])):
    with POD(sys.argv[1], readonly=True) as pod:
        assert set(pod) >= {f"k{number}" for number in range(20)}, list(pod)
        pod.revert()
print("fine")
"""
    with POD(tmp_path, {f"k{number}": 0 for number in range(20)}, file_size=3, durable=False) as pod:
        pod.sync()
        reader = gevent.spawn(run, script, tmp_path, 100)
        number = 0
        while not reader.ready():
            pod[f"k{number % 20}"] = number
            pod[f"temporary {number}"] = number
            pod.pop(f"temporary {number - 40}", None)
            number += 1
            if not number % 5:
                pod.sync()
        assert reader.get() == "fine\n"
        assert number > 100


def test_a_forked_child_writes_nothing_and_holds_no_lock(tmp_path):
    script = """
import os, sys
from checkpoints import POD, StoreError, StoreLocked
pod = POD(sys.argv[1], {"a": 1})
pod.sync()
pod["a"] = 2
if os.fork() == 0:
    for attempt in (lambda: pod.update(a=3), pod.sync, lambda: pod["a"], lambda: POD(sys.argv[1])):
        try:
            attempt()
        except StoreLocked as error:
            print("locked", flush=True)
        except StoreError as error:
            print("forked", flush=True)
    pod.close()
    sys.exit()          # runs what is registered for the end
os.wait()
print(dict(POD(sys.argv[1], readonly=True)), flush=True)
pod["a"] = 4
"""
    assert run(script, tmp_path).splitlines() == ["forked", "forked", "forked", "locked", "{'a': 1}"]
    assert stored(tmp_path) == {"a": 4}


def test_signals_are_nobodys_business(tmp_path):
    script = """
import signal, sys, threading
before = [signal.getsignal(number) for number in signal.valid_signals()]
from checkpoints import POD
made = []
thread = threading.Thread(target=lambda: made.append(POD(sys.argv[1], {"a": 1})))
thread.start(); thread.join()
assert [signal.getsignal(number) for number in signal.valid_signals()] == before
made[0].close()
print("fine")
"""
    assert run(script, tmp_path) == "fine\n"
    before = signal.getsignal(signal.SIGTERM)
    with gevent.spawn(POD, tmp_path).get() as pod:
        assert dict(pod) == {"a": 1}
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("gevent_too", [False, True])
def test_what_a_script_did_not_close_is_closed_at_its_end(tmp_path, gevent_too):
    script = """
import sys
if sys.argv[2] == "True":
    from gevent import monkey; monkey.patch_all()
from checkpoints import POD
POD(sys.argv[1])["a"] = [1]
POD(sys.argv[1])["a"].append(2)
"""
    run(script, tmp_path, gevent_too)
    assert stored(tmp_path) == {"a": [1, 2]}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("opened_by_parent", [False, True])
def test_a7_what_a_multiprocessing_child_did_not_close_is_closed_at_its_end(
    tmp_path, method, opened_by_parent
):
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing, sys
from checkpoints import POD, Tracker

def work(path):
    for kind, name in ((POD, "pod"), (Tracker, "tracker")):
        store = kind(f"{path}/{name}", sync_interval=None)
        store["a"] = {"b": 1}

if __name__ == "__main__":
    path, method, opened = sys.argv[1:]
    parent = POD(f"{path}/parent") if opened == "True" else None
    child = multiprocessing.get_context(method).Process(target=work, args=(path,))
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
"""
    )
    run(
        "import runpy, sys; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')",
        script,
        tmp_path,
        method,
        opened_by_parent,
    )
    assert stored(tmp_path / "pod") == {"a": {"b": 1}}
    with Tracker(tmp_path / "tracker", readonly=True) as tracker:
        assert tracker["a"]["b"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_program_that_stops_in_order_on_a_signal_loses_nothing(tmp_path, number):
    """Signals are the program's; closing is all that it has to do."""
    script = """
import signal, sys, threading
from checkpoints import POD
stop = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda *_: stop.set())
with POD(sys.argv[1], sync_interval=None) as pod:
    pod["a"] = [1]
    print("ready", flush=True)
    stop.wait()
    pod["a"].append(2)
"""
    with start(script, tmp_path) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(60) == 0
    assert stored(tmp_path) == {"a": [1, 2]}


def test_an_uncaught_exception_leaves_everything_on_disk(tmp_path):
    def work():
        with POD(tmp_path) as pod:
            pod["a"] = 1
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        work()
    assert stored(tmp_path) == {"a": 1}


def test_using_a_closed_store_is_an_error_everywhere(tmp_path):
    pod = POD(tmp_path, {"a": {"b": 1}})
    value = pod["a"]
    pod.close()
    pod.close()
    for use in (
        lambda: pod["a"],
        lambda: pod.update(a=1),
        lambda: pod.pop("a"),
        lambda: "a" in pod,
        lambda: len(pod),
        lambda: list(pod),
        pod.sync,
        pod.dirty,
        pod.hold,
        pod.unhold,
        pod.revert,
        lambda: pod.mark_dirty("a"),
        lambda: pod.sync_key("a"),
        pod.set["a"].clear,
        lambda: value.update(b=2),
    ):
        with pytest.raises(StoreClosed):
            use()


def test_a_file_size_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="file_size"):
        POD(tmp_path, file_size=0)


def test_a_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(OSError, match="x"):
        POD(tmp_path / "x")


def test_the_errors_of_two_processes_are_one_tree():
    assert issubclass(StoreLocked, StoreError)


def test_threads_lose_nothing(tmp_path):
    script = """
import sys, threading, time
from checkpoints import POD
from checkpoints.files.directory import Directory
real = Directory._fsync
Directory._fsync = lambda self, fd: (time.sleep(0.002), real(self, fd))
pod = POD(sys.argv[1], sync_at=500, file_size=100)
failed, rounds = [], int(sys.argv[2])
def work(name):
    try:
        for number in range(rounds):
            pod[f"{name} {number % 300}"] = [number]
            pod[f"{name} {number % 300}"].append(number)
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
pod.close()
stored = dict(POD(sys.argv[1], readonly=True))
expected = {f"{name} {n}": [rounds - 300 + n] * 2 for name in "abcd" for n in range(300)}
print(failed, stored == expected, len(stored))
"""
    assert run(script, tmp_path, size(ci=900, proof=3000)) == "[] True 1200\n"


def test_greenlets_lose_nothing(tmp_path, slow_disk):
    rounds = size(ci=60, proof=200)
    with POD(tmp_path, sync_at=100, file_size=100) as pod:

        def work(name):
            for number in range(rounds):
                pod[f"{name} {number % 20}"] = number
                pod.set["shared"] += 1  # type: ignore[operator]

        pod["shared"] = 0
        slow_disk(0.002)
        gevent.joinall([gevent.spawn(work, name) for name in range(50)], raise_error=True)
    assert stored(tmp_path) == {"shared": 50 * rounds} | {
        f"{name} {number}": rounds - 20 + number for name in range(50) for number in range(20)
    }


class Another:
    """Another thread that wants to do something at one moment; waits a little whether it can."""

    def __init__(self, wish):
        self.got = []
        self._threads = []
        self._wish = wish

    def now(self):
        if not self._threads:
            self._threads.append(threading.Thread(target=lambda: self.got.append(self._wish())))
            self._threads[0].start()
            self._threads[0].join(0.05)

    def finish(self):
        for thread in self._threads:
            thread.join(60)


def test_what_is_popped_is_popped_once(tmp_path, monkeypatch):
    with POD(tmp_path, {"a": 1}) as pod:
        another = Another(lambda: pod.pop("a", None))
        get = MemTable.get
        monkeypatch.setattr(MemTable, "get", lambda self, key: (get(self, key), another.now())[0])
        assert pod.pop("a", None) == 1
        another.finish()
        assert another.got == [None]


def test_everybody_gets_the_same_default(tmp_path, monkeypatch):
    with POD(tmp_path) as pod:
        another = Another(lambda: pod.setdefault("a", "another's"))
        put = MemTable.put
        monkeypatch.setattr(MemTable, "put", lambda self, pairs: (another.now(), put(self, pairs))[1])
        assert pod.setdefault("a", "ours") == "ours"
        another.finish()
        assert another.got == [pod["a"]] == ["ours"]


def test_a_greenlet_that_is_killed_while_it_syncs_leaves_the_store_in_order(tmp_path, slow_disk):
    with POD(tmp_path, {"a": 0}) as pod:
        pod.sync()
        slow_disk(0.05)
        for number in range(5):
            pod["a"] = number
            syncing = gevent.spawn(pod.sync)
            gevent.sleep(0.02)
            syncing.kill()
            assert pod.dirty() <= {"a"}
        pod.sync()
        assert pod.dirty() == set()
        assert stored(tmp_path) == {"a": 4}


def test_syncs_that_are_asked_for_together_are_one_commit(tmp_path, slow_disk, commits):
    with POD(tmp_path, file_size=1, sync_at=None) as pod:
        pod.update({f"k{number}": 0 for number in range(100)})
        pod.sync()
        slow_disk(0.001)
        commits.clear()

        def work(number):
            pod[f"k{number}"] = 1
            pod.sync_key(f"k{number}")

        gevent.joinall([gevent.spawn(work, number) for number in range(100)], raise_error=True)
        assert len(commits) == 2  # the first alone, all others together
        assert set(stored(tmp_path).values()) == {1}


def test_waiting_for_the_disk_within_together_is_refused(tmp_path):
    with POD(tmp_path, {"a": 1}) as pod:
        with pod.together(), pytest.raises(StoreError, match="inside together"):
            pod.sync()
        with pod.together(), pytest.raises(StoreError, match="inside together"):
            pod.revert()
        with pod.together():
            pod["a"] = 2
    assert stored(tmp_path) == {"a": 2}


def test_what_is_done_together_is_synced_after_it(tmp_path):
    with POD(tmp_path, sync_at=5, sync_interval=None) as pod:
        with pod.together():
            for number in range(20):
                pod["a"] = number
            assert stored(tmp_path) == {}
        assert stored(tmp_path) == {"a": 19}


def test_every_directory_on_the_way_is_made_durable(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    with POD(tmp_path / "a" / "b" / "x"):
        assert synced == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]


def test_at_the_end_one_store_that_cannot_be_written_keeps_no_other_from_it(tmp_path):
    script = """
import shutil, sys
from checkpoints import POD
from tests.support.sizes import size
for name in "abc":
    POD(f"{sys.argv[1]}/{name}")["k"] = 1
shutil.rmtree(f"{sys.argv[1]}/b")
"""
    run(script, tmp_path)
    assert stored(tmp_path / "a") == stored(tmp_path / "c") == {"k": 1}
    assert not (tmp_path / "b").exists()
