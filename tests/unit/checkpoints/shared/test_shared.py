"""Stores that several processes use: real processes, killed and restarted."""

from __future__ import annotations

import json
import os
import pickle
import signal
import stat
import threading
import time
from contextlib import ExitStack
from typing import Any

import gevent
import pytest
from msgspec.structs import replace

from checkpoints import (
    POD,
    Checkpoint,
    CheckpointMoved,
    CheckpointStore,
    MessageTooLarge,
    RpcClient,
    RpcServer,
    Seq,
    SharedPersistentOrderedDict,
    SharedPOD,
    SharedProgressTracker,
    SharedTracker,
    StoreClosed,
    StoreError,
    StoreLocked,
    StoreUnavailable,
    TailKey,
    Tracker,
    export_store,
)
from tests.support.sizes import proving, size
from tests.unit.checkpoints.scripts import kill, recount, run, start

CONNECT = "import sys, os, time, signal; from checkpoints import *; shared = SharedPOD.connect(sys.argv[1])\n"
OWNER = """
import sys, time
from checkpoints import SharedPOD
shared = SharedPOD(sys.argv[1], sync_interval=None)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared(tmp_path, closing):
    return closing(SharedPOD(tmp_path / "x"))


def test_e5_a_store_is_shared_however_long_its_path_is(tmp_path):
    path = tmp_path.joinpath(*["long" * 20] * 3) / "x.pod"
    with SharedPOD(path) as shared:
        shared["a"] = 1
        assert run(CONNECT + "print(shared['a'])", path) == "1\n"
        assert pickle.loads(pickle.dumps(shared))["a"] == 1


@pytest.fixture
def processes():
    """Starts scripts and ends those that still run."""
    with ExitStack() as stack:

        def begin(script, *arguments, said=""):
            process = start(script, *arguments)
            stack.callback(kill, process)
            if said:
                assert process.stdout.readline().strip() == said
            return process

        yield begin


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def test_the_long_names_are_the_same_classes():
    assert (SharedPersistentOrderedDict, SharedProgressTracker) == (SharedPOD, SharedTracker)


def test_five_processes_write_squares_in_order(shared, tmp_path, processes):
    shared.update([(number, None) for number in range(25)])
    script = CONNECT + "for i in range(int(sys.argv[2]), 25, 5): shared[i] = i**2"
    for worker in [processes(script, tmp_path / "x", number) for number in range(5)]:
        finish(worker)
    assert list(shared.items()) == [(number, number**2) for number in range(25)]
    shared.sync()
    with POD(tmp_path / "x", readonly=True) as stored:
        assert list(stored.values()) == [number**2 for number in range(25)]


def test_two_processes_count_to_400_without_a_lock(shared, tmp_path, processes):
    shared["a"] = 0
    script = CONNECT + "for _ in range(200): shared.set['a'] += 1"
    for worker in [processes(script, tmp_path / "x") for _ in range(2)]:
        finish(worker)
    assert shared["a"] == 400


def test_what_is_done_under_the_lock_is_one_step_for_the_others(shared, tmp_path, processes):
    shared["a"] = [0, 0]
    locked = (
        CONNECT
        + """
for _ in range(40):
    with shared.locked():
        first, second = shared["a"]
        shared["a"] = [first + 1, second]
        with shared.locked():                   # may be nested
            shared["a"] = [first + 1, second + 1]
"""
    )
    reading = (
        CONNECT + "print({tuple(pair) for pair in [shared['a'] for _ in range(300)] if pair[0] != pair[1]})"
    )
    workers = [processes(locked, tmp_path / "x") for _ in range(3)]
    reader = processes(reading, tmp_path / "x")
    for worker in workers:
        finish(worker)
    assert finish(reader) == "set()\n"
    assert shared["a"] == [120, 120]


def test_the_lock_keeps_other_threads_of_the_same_client_out_too(shared):
    seen = []
    shared["a"] = 0
    with shared.locked():
        other = threading.Thread(target=lambda: seen.append(shared["a"]))
        other.start()
        gevent.sleep(0.05)
        assert seen == []
        shared["a"] = 1
    other.join(60)
    assert seen == [1]


def test_the_lock_of_a_killed_client_is_free_at_once(shared, tmp_path, processes):
    script = CONNECT + "shared.lock(); shared['a'] = 1; print('locked', flush=True); time.sleep(600)"
    holder = processes(script, tmp_path / "x", said="locked")
    waiting = gevent.spawn(lambda: shared["a"])
    gevent.sleep(0.05)
    assert not waiting.ready()
    began = time.monotonic()
    holder.kill()
    assert waiting.get(timeout=60) == 1
    assert time.monotonic() - began < size(ci=30, proof=2)


def test_a_lock_that_is_not_held_cannot_be_let_go(shared):
    with pytest.raises(StoreError, match="not held"):
        shared.unlock()
    shared["a"] = 1
    assert shared["a"] == 1


def test_clients_of_a_killed_server_are_told_and_a_new_one_has_the_last_sync(tmp_path, processes):
    server = processes(OWNER, tmp_path / "x", said="ready")
    shared = SharedPOD.connect(tmp_path / "x")
    shared["a"] = 1
    shared.sync()
    shared["a"] = 2
    # Children of the server that were forked must not keep its sockets open: nothing would end then.
    kill(server)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        shared["a"]
    with pytest.raises(StoreUnavailable):
        shared.sync()
    assert time.monotonic() - began < size(ci=30, proof=2)
    processes(OWNER, tmp_path / "x", said="ready")
    assert shared["a"] == 1
    shared.close()


def test_forked_children_of_a_killed_server_do_not_look_like_it(tmp_path, processes):
    script = """
import os, sys, time
from checkpoints import SharedPOD
shared = SharedPOD(sys.argv[1])
other = SharedPOD.connect(sys.argv[1])
other["a"] = 1
if not os.fork():
    try:
        shared["child"] = other["a"] + 1        # an address, with a connection of its own
        shared.close()                          # ends that, not the parent's store
    finally:
        sys.stdout.close(); sys.stderr.close()
        time.sleep(600); os._exit(0)
while "child" not in shared:
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""
    server = processes(script, tmp_path / "x", said="ready")
    with SharedPOD.connect(tmp_path / "x") as shared:
        assert dict(shared) == {"a": 1, "child": 2}
        kill(server)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            shared["a"]
        assert time.monotonic() - began < size(ci=30, proof=2)
    with POD(tmp_path / "x"):
        pass  # nor do they hold its lock


def test_who_held_the_lock_of_a_killed_server_is_told_before_it_goes_on(tmp_path, processes):
    server = processes(OWNER, tmp_path / "x", said="ready")
    shared = SharedPOD.connect(tmp_path / "x")

    def work():
        with shared.locked():
            kill(server)
            processes(OWNER, tmp_path / "x", said="ready")
            with pytest.raises(StoreUnavailable):
                shared["a"] = 1
            shared["a"] = 2

    with pytest.raises(StoreUnavailable, match="the lock with it"):
        work()
    shared["a"] = 3
    assert shared["a"] == 3
    shared.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_parent_that_is_killed(tmp_path, processes, number):
    script = """
import sys, time
from multiprocessing import get_context
from checkpoints import SharedPOD
def work(shared):
    shared["from the child"] = 1
    shared.sync()
if __name__ == "__main__":
    shared = SharedPOD(sys.argv[1], sync_interval=None)
    shared["a"] = 1
    shared.sync()
    shared["b"] = 2
    print("ready", flush=True)
    time.sleep(600)
"""
    parent = processes(script, tmp_path / "x", said="ready")
    with SharedPOD.connect(tmp_path / "x") as shared:
        shared["from another"] = 1
        shared.sync_key("from another")
    parent.send_signal(number)
    assert parent.wait(60) == -number
    with pytest.raises(StoreUnavailable):
        SharedPOD.connect(tmp_path / "x")["a"]
    with POD(tmp_path / "x") as stored:  # nobody holds it
        assert stored["a"] == stored["from another"] == 1


def test_a_write_is_answered_when_it_was_applied_and_a_sync_when_it_is_on_disk(tmp_path, closing, slow_disk):
    pod = closing(POD(tmp_path / "x", sync_interval=None))
    server = closing(RpcServer(tmp_path / "s"))
    export_store(server, "x", pod)
    shared = closing(SharedPOD.connect(tmp_path / "s", "x"))
    shared["a"] = 1
    assert pod["a"] == 1
    slow_disk(0.05)
    began = time.monotonic()
    shared.sync()
    assert time.monotonic() - began >= 0.1  # file and directory
    with POD(tmp_path / "x", readonly=True) as stored:
        assert stored["a"] == 1


def test_a_walk_in_pages_sees_every_key_once_beside_a_writer(shared, tmp_path, processes):
    for start_at in (0, 1250):
        shared.update([(number, "x" * 500) for number in range(start_at, start_at + 1250)])
    script = (
        CONNECT
        + """
print("ready", flush=True)
number = 0
while True:
    number += 1
    shared[f"new {number}"] = 1
    shared[number % 2500] = number
    shared.pop(f"new {number - 5}", None)
"""
    )
    processes(script, tmp_path / "x", said="ready")
    for walk in (shared.iterkeys, lambda: (key for key, _ in shared.iteritems())):
        keys = list(walk())
        assert len(keys) == len(set(keys))
        assert [key for key in keys if isinstance(key, int)] == list(range(2500))


def test_a_client_gets_what_the_owner_gets(tmp_path, closing):
    tracker = closing(Tracker(tmp_path / "x", max_tries=2))
    server = closing(RpcServer(tmp_path / "s"))
    export_store(server, "x", tracker)
    shared = closing(SharedTracker.connect(tmp_path / "s", "x"))
    tracker.add_many([("a", 1), "b", "c", 7])
    tracker.mark_done("b")
    tracker.abort(7)
    tracker["c"]["next_retry_at"] = 5.0
    for name in (
        "iterkeys", "itervalues", "iteritems", "keys", "values", "items",
        "todo_keys", "todo_items", "todo_values", "aborted_keys", "aborted_items", "aborted_values",
    ):  # fmt: skip
        assert list(getattr(shared, name)()) == list(getattr(tracker, name)())
        if name.startswith("todo"):
            options = {"allow_aborted": True, "due": 4.0}
            assert list(getattr(shared, name)(**options)) == list(getattr(tracker, name)(**options))
    assert shared.dirty() == tracker.dirty() == {("a", 1), "b", "c", 7}
    assert len(shared) == len(tracker)
    assert shared.max_tries == tracker.max_tries
    for key in tracker:
        assert shared.should_do(key) == tracker.should_do(key)
        assert shared.done(key) == tracker.done(key)
        assert shared.tries(key) == tracker.tries(key)
        assert shared[key] == tracker[key]
        assert key in shared
    assert [shared.should_try("c"), tracker.should_try("c"), shared.should_try("c")] == [True, True, False]
    assert (shared.num_done(), shared.num_tried(), shared.num_aborted()) == recount(tracker)
    assert list(shared.try_keys()) == list(shared.try_keys()) == [("a", 1)]
    assert list(shared.try_keys()) == []


def test_dirty_keys_are_told_however_many(tmp_path, closing):
    settings: dict[str, Any] = {"sync_at": None, "sync_interval": None, "durable": False}
    shared = closing(SharedPOD(tmp_path / "x", **settings))
    own = closing(POD(tmp_path / "x", **settings))
    own["gone"] = 1
    own.sync()
    del own["gone"]
    own.update((f"{number} " + '"\\\t' * 200, number) for number in range(3000))
    own.update([(1, 1), ("1", 1), (("a", 1), 1), ("\ud800", 1)])
    assert len(own.dirty()) == 3005
    assert shared.dirty() == own.dirty()


def test_what_is_one_step_is_one_message(shared, monkeypatch):
    asked = []
    call = RpcClient.call
    monkeypatch.setattr(
        RpcClient,
        "call",
        lambda self, name, **arguments: (asked.append(arguments["method"]), call(self, name, **arguments))[1],
    )
    assert shared.setdefault("a", [1]) == [1]
    assert shared.setdefault("a", [2]) == [1]
    assert shared.pop("a") == [1]
    assert shared.pop("a", 7) == 7
    assert shared.setdefault(("b", 1), 2) == 2
    assert shared.popitem() == (("b", 1), 2)
    assert asked == ["setdefault", "setdefault", "pop", "pop", "setdefault", "popitem"]


def test_no_two_processes_get_the_same_try(tmp_path, closing, processes):
    shared = closing(SharedTracker(tmp_path / "x", max_tries=1))
    shared.add_many(range(100))
    script = """
import sys, json
from checkpoints import SharedTracker
print(json.dumps(list(SharedTracker.connect(sys.argv[1]).try_keys())))
"""
    workers = [processes(script, tmp_path / "x") for _ in range(3)]
    given = [key for worker in workers for key in json.loads(finish(worker))]
    assert sorted(given) == list(range(100))


METHODS = {
    "get": lambda s: s["a"],
    "set": lambda s: s.__setitem__("a", 1),
    "del": lambda s: s.__delitem__("a"),
    "in": lambda s: "a" in s,
    "not a key in": lambda s: 1.5 in s,
    "len": len,
    "iter": list,
    "items": lambda s: list(s.items()),
    "values": lambda s: list(s.values()),
    "update": lambda s: s.update(a={}),
    "deep": lambda s: s.set["a"].clear(),
    "clear": lambda s: s.clear(),
    "pop": lambda s: s.pop("a", None),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault("a", {}),
    "sync": lambda s: s.sync(),
    "sync_key": lambda s: s.sync_key("a"),
    "mark_dirty": lambda s: s.mark_dirty("a"),
    "dirty": lambda s: s.dirty(),
    "hold": lambda s: s.hold(),
    "unhold": lambda s: s.unhold(),
    "revert": lambda s: s.revert(),
    "lock": lambda s: s.lock(),
    "unlock": lambda s: s.unlock(),
    "locked": lambda s: s.locked().__enter__(),
    "add": lambda s: s.add("a"),
    "todo": lambda s: list(s.todo_keys()),
    "try": lambda s: list(s.try_keys()),
    "should_do": lambda s: s.should_do("a"),
    "mark_done": lambda s: s.mark_done("a"),
    "numbers": lambda s: s.percent_done(),
    "max_tries": lambda s: s.max_tries,
}


@pytest.mark.parametrize("use", METHODS.values(), ids=METHODS)
def test_a_closed_client_says_so_everywhere(tmp_path, use):
    shared = SharedTracker(tmp_path / "x")
    shared.close()
    shared.close()
    with pytest.raises(StoreClosed):
        use(shared)


@pytest.mark.parametrize("kind", [SharedPOD, SharedTracker])
def test_a_pickled_client_is_an_address(tmp_path, closing, kind):
    shared = closing(kind(tmp_path / "x"))
    shared["a"] = {"n": 1}
    copied = pickle.loads(pickle.dumps(shared))
    assert type(copied) is kind
    assert copied["a"]["n"] == 1
    copied.close()
    assert shared["a"]["n"] == 1
    script = """
import pickle, sys
shared = pickle.loads(bytes.fromhex(sys.argv[1]))
shared["from"] = {"another": "process"}
shared.close()
"""
    run(script, pickle.dumps(shared).hex())
    assert shared["from"]["another"] == "process"


def test_two_stores_have_locks_of_their_own(tmp_path, closing):
    server = closing(RpcServer(tmp_path / "s"))
    for name in ("one", "other"):
        export_store(server, name, closing(POD(tmp_path / name)))
    one, other = (closing(SharedPOD.connect(tmp_path / "s", name)) for name in ("one", "other"))
    with one.locked(), other.locked():
        one["a"] = 1
        other["a"] = 2
    third = closing(SharedPOD.connect(tmp_path / "s", "other"))
    with one.locked():
        assert third["a"] == 2


def test_the_socket_is_in_the_stores_directory_for_its_user_only(shared, tmp_path):
    assert stat.S_IMODE((tmp_path / "x" / ".socket").stat().st_mode) == 0o600


def test_a_second_owner_is_refused_and_a_crashed_ones_socket_replaced(tmp_path, processes):
    server = processes(OWNER, tmp_path / "x", said="ready")
    with pytest.raises(StoreLocked, match=f"process {server.pid}"):
        SharedPOD(tmp_path / "x")
    kill(server)
    assert (tmp_path / "x" / ".socket").exists()
    with SharedPOD(tmp_path / "x") as shared:
        shared["a"] = 1
        assert shared["a"] == 1


def test_an_operators_edit_from_another_process_is_noticed_by_the_running_pillow(tmp_path, closing):
    """Does what `pillowd checkpoint set` does to a running daemon, without the daemon around it."""
    key = TailKey("cases", "couch/cases")
    store = closing(CheckpointStore(tmp_path / "state"))
    store.save(key, Checkpoint(seq=Seq.of("5-x")))

    def set_seq(pillow, source, seq):
        return store.edit(
            TailKey(pillow, source), lambda present: replace(present, seq=Seq.of(seq))
        ).to_json()

    server = closing(RpcServer(tmp_path / "s", {"checkpoint.set": set_seq}))
    script = """
import sys
from checkpoints import RpcClient
print(RpcClient(sys.argv[1]).call("checkpoint.set", pillow="cases", source="couch/cases", seq="3-y"))
"""
    edited = gevent.spawn(run, script, server.path).get()
    assert "'seq': '3-y', 'generation': 1" in edited
    with pytest.raises(CheckpointMoved):
        store.save(key, Checkpoint(seq=Seq.of("6-x")))
    assert store.get(key).seq == Seq.of("3-y")


def test_a_value_over_the_limit_is_an_error_and_the_client_goes_on(shared, tmp_path):
    shared["a"] = 1
    with pytest.raises(MessageTooLarge):
        shared["b"] = "x" * (1024 * 1024)
    assert dict(shared) == {"a": 1}
    shared["big"] = "x" * 600_000
    shared.set["big"] += "y" * 600_000
    with pytest.raises(MessageTooLarge):
        shared["big"]
    assert shared["a"] == 1


def test_a_value_over_the_limit_is_not_taken_out_and_lost(shared, tmp_path, closing):
    own = closing(POD(tmp_path / "x"))
    own["a"] = '"' * 600_000  # 1.2 MB in a message
    for take in (lambda: shared.pop("a"), lambda: shared.pop("a", None), shared.popitem):
        with pytest.raises(MessageTooLarge):
            take()
    assert len(own["a"]) == 600_000


def test_a_call_to_a_store_that_is_not_shared_is_an_error(tmp_path, closing):
    server = closing(RpcServer(tmp_path / "s"))
    with pytest.raises(StoreError, match="unknown call 'store nothing'"):
        SharedPOD.connect(server.path, "nothing")["a"]
    export_store(server, "x", closing(POD(tmp_path / "x")))
    with RpcClient(server.path) as client, pytest.raises(StoreError, match="no method 'rm'"):
        client.call("store x", method="rm", arguments=[])


@pytest.mark.parametrize("gets", [2000, pytest.param(20_000, marks=pytest.mark.proof)])
def test_a_client_gets_thousands_a_second_and_the_owner_never_stalls(shared, tmp_path, processes, gets):
    shared.update({f"k{number}": "x" * 200 for number in range(100)})
    script = (
        CONNECT
        + """
shared["k1"]
began = time.perf_counter()
for number in range(int(sys.argv[2])): shared[f"k{number % 100}"]
print(int(int(sys.argv[2]) / (time.perf_counter() - began)))
"""
    )
    gaps = []

    def tick():
        while True:
            before = time.thread_time()  # what this thread computed meanwhile, not what others did
            gevent.sleep(0.001)
            gaps.append(time.thread_time() - before)

    ticking = gevent.spawn(tick)
    client = processes(script, tmp_path / "x", gets)
    out, _ = gevent.spawn(client.communicate).get()
    ticking.kill()
    print("gets per second:", out.strip(), "longest gap:", max(gaps))
    assert int(out) > (5000 if proving() else 5)
    assert max(gaps) < size(ci=0.25, proof=0.05)


def test_the_servers_process_is_this_one(shared):
    assert os.getpid() == shared._pid
