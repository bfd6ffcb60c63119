"""Trackers: the same tests for one in this process (Tracker) and one through the socket (SharedTracker)."""

from __future__ import annotations

import json
import logging
import re
import time

import gevent
import pytest
from gevent import monkey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import POD, DuplicateKeyError, ProgressTracker, SharedTracker, StoreError, Tracker
from checkpoints.pod import engine
from checkpoints.tracker.index import TaskIndex
from tests.support.sizes import size
from tests.unit.checkpoints.scripts import GOLDEN, ROOT, kill, recount, run, start

NEW = {"_tries": 0, "_done": False, "_aborted": False}


def test_the_long_name_is_the_same_class():
    assert ProgressTracker is Tracker


def test_a_new_task_is_untried_undone_and_not_given_up(tracker):
    tracker.add("a")
    assert tracker["a"] == NEW
    assert list(tracker["a"]) == ["_tries", "_done", "_aborted"]


def test_what_tastypy_wrote_opens_with_its_counts(tmp_path):
    (tmp_path / "0.json").write_bytes((GOLDEN / "tracker" / "0.json").read_bytes())
    with Tracker(tmp_path) as tracker:
        assert (tracker.num_done(), tracker.num_tried(), tracker.num_aborted()) == (1, 1, 1)
        assert list(tracker.todo_keys()) == ["c"]
        assert tracker["c"]["note"] == "x"
        assert tracker.max_tries == 0


def test_adding_twice_is_an_error_unless_asked_for(tracker):
    tracker.add("a", {"note": "x"})
    with pytest.raises(DuplicateKeyError, match="'a'"):
        tracker.add("a")
    tracker.add_if_absent("a")
    tracker.add_many_if_absent(["b", "a", "b", ("c", 1)])
    assert list(tracker) == ["a", "b", ("c", 1)]
    assert tracker["a"] == NEW | {"note": "x"}


@pytest.mark.parametrize(
    "fields", [{"x": object()}, {"_tries": -1}, {"x": 1, "_done": None}], ids=["object", "tries", "done"]
)
def test_a_task_is_added_with_all_its_fields_or_not(tracker, fields):
    with pytest.raises(TypeError):
        tracker.add("a", fields)
    assert dict(tracker) == {}
    tracker.add("a", {"x": [1], "_tries": 2})
    assert tracker["a"] == NEW | {"x": [1], "_tries": 2}
    assert tracker.num_tried() == 1


@pytest.mark.parametrize("keys", [["x", "a", "y"], ["x", "y", "x"]])
def test_adding_many_with_a_duplicate_names_it_and_adds_none(tracker, keys):
    tracker.add("a")
    with pytest.raises(DuplicateKeyError, match="'a'" if "a" in keys else "'x'"):
        tracker.add_many(iter(keys))
    assert list(tracker) == ["a"]
    tracker.add_many(["x", "y"])
    assert list(tracker) == ["a", "x", "y"]


def test_what_is_missing(tracker):
    assert tracker.done("missing") is False
    assert tracker.aborted("missing") is False
    for method in (
        tracker.mark_done,
        tracker.mark_not_done,
        tracker.abort,
        tracker.unabort,
        tracker.should_do,
        tracker.should_try,
        tracker.tries,
        tracker.increment_tries,
        tracker.decrement_tries,
        tracker.reset_tries,
    ):
        with pytest.raises(KeyError, match="missing"):
            method("missing")
        with pytest.raises(TypeError, match="a key is a str"):
            method(True)
    assert len(tracker) == 0


@pytest.mark.parametrize("kind", [Tracker, SharedTracker])
def test_every_task_is_tried_max_tries_times(tmp_path, closing, kind):
    tracker = closing(kind(tmp_path, max_tries=2))
    tracker.add_many(["a", "b"])
    assert [list(tracker.try_keys()) for _ in range(3)] == [["a", "b"], ["a", "b"], []]
    assert tracker["a"] == NEW | {"_tries": 2}
    assert not tracker.should_do("a")
    assert not tracker.should_try("a")
    tracker.decrement_tries("a")
    assert tracker.should_try("a")
    assert tracker.tries("a") == 2


def test_without_max_tries_for_ever(tracker):
    tracker.add("a")
    for _ in range(20):
        assert list(tracker.try_keys()) == ["a"]
    assert tracker.tries("a") == 20


ITERATORS = ["todo_keys", "todo_items", "todo_values", "try_keys", "try_items", "try_values"]


@pytest.mark.parametrize("name", ITERATORS)
def test_what_was_given_up_is_left_out_unless_allowed(tracker, name):
    tracker.add_many(["a", "b"])
    tracker.abort("a")
    tracker.update(a={"own": 1}, b={"own": 2})

    def owns(**options):
        given = list(getattr(tracker, name)(**options))
        entry = {
            "keys": lambda key: tracker[key],
            "items": lambda item: item[1],
            "values": lambda value: value,
        }
        return [entry[name.split("_")[1]](each)["own"] for each in given]

    assert owns() == [2]
    assert owns(allow_aborted=True) == [1, 2]


def test_what_was_given_up_should_not_be_done_unless_allowed(tracker):
    tracker.add("a")
    tracker.abort("a")
    for should in (tracker.should_do, tracker.should_do_add, tracker.should_try, tracker.should_try_add):
        assert should("a") is False
        assert should("a", allow_aborted=True) is True
    assert tracker.should_do_add("b") is True
    assert tracker.should_try_add("c") is True
    assert (tracker.tries("a"), tracker.tries("b"), tracker.tries("c")) == (2, 0, 1)


def test_todo_gives_keys_pairs_and_values(tracker):
    tracker.add_many(["a", "b", "c"])
    tracker.mark_done("b")
    assert list(tracker.todo_keys()) == ["a", "c"]
    assert list(tracker.todo_items()) == [("a", NEW), ("c", NEW)]
    assert list(tracker.todo_values()) == [NEW, NEW]


@pytest.mark.parametrize("name", ["try_items", "try_values"])
def test_all_that_can_be_tried_are_given_each_counted_before(tracker, name):
    tracker.add_many(["a", "b", "c"])
    tracker.mark_done("b")
    given = []
    for each in getattr(tracker, name)():
        given.append(each)
        assert tracker.num_tried() == len(given)
    tried = NEW | {"_tries": 1}
    assert given == ([("a", tried), ("c", tried)] if name == "try_items" else [tried, tried])


def test_what_was_given_up_can_be_listed(tracker):
    tracker.add_many(["a", "b", "c"])
    tracker.abort("c")
    tracker.abort("a")
    given_up = NEW | {"_aborted": True}
    assert list(tracker.aborted_keys()) == ["a", "c"]
    assert list(tracker.aborted_items()) == [("a", given_up), ("c", given_up)]
    assert list(tracker.aborted_values()) == [given_up, given_up]


DYING = """
import os, signal, sys
from checkpoints import Tracker
from tests.support.sizes import size
tracker = Tracker(sys.argv[1], max_tries=3, sync_interval=None)
tracker.add_many_if_absent(["poison", "fine"])
for key in tracker.try_keys():
    print(key, flush=True)
    if key == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    tracker.mark_done(key)
tracker.close()
"""


def test_a_task_that_kills_the_process_is_not_tried_for_ever(tmp_path):
    offered = []
    for _ in range(5):
        with start(DYING, tmp_path) as process:
            offered.append(process.communicate(timeout=60)[0].split())
        with Tracker(tmp_path, readonly=True) as tracker:
            assert tracker.done("poison") is False
            assert tracker.tries("poison") == min(len(offered), 3)
    assert offered == [["poison"], ["poison"], ["poison"], ["fine"], []]


def test_a_try_is_on_disk_before_the_task_is_given_out(tmp_path):
    with Tracker(tmp_path, sync_interval=None) as tracker:
        tracker.add_many(range(5))
        for key in tracker.try_keys():
            with Tracker(tmp_path, readonly=True) as stored:
                assert stored.tries(key) == 1
        for key in tracker.try_keys(durable=False):
            with Tracker(tmp_path, readonly=True) as stored:
                assert stored.tries(key) == 1


OPERATIONS = st.sampled_from(
    [
        "add", "done", "undone", "abort", "unabort", "up", "down", "reset", "delete", "assign", "update",
        "edit done", "edit tries", "set", "try", "revert", "sync", "reopen", "clone",
    ]
)  # fmt: skip


def operate(tracker, operation, key, number):
    if operation == "add":
        tracker.add_if_absent(key)
    elif operation == "assign":
        tracker[key] = {"_done": bool(number % 2), "_tries": number, "note": "x"}
    elif operation == "update":
        tracker.update({key: {"_aborted": bool(number % 2), "_tries": number}})
    elif operation == "revert":
        tracker.revert()
    elif operation == "sync":
        tracker.sync()
    elif operation == "try":
        list(tracker.try_keys(durable=False))
    elif key not in tracker:
        return
    elif operation == "delete":
        del tracker[key]
    elif operation == "edit done":
        tracker[key]["_done"] = not tracker[key]["_done"]
    elif operation == "edit tries":
        tracker[key].update({"_tries": number})
    elif operation == "set":
        tracker.set[key]["_tries"] += number
    else:
        methods = {
            "done": tracker.mark_done,
            "undone": tracker.mark_not_done,
            "abort": tracker.abort,
            "unabort": tracker.unabort,
            "up": tracker.increment_tries,
            "down": tracker.decrement_tries,
            "reset": tracker.reset_tries,
        }
        methods[operation](key)


@settings(max_examples=size(ci=40, proof=400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(OPERATIONS, st.sampled_from("abcd"), st.integers(0, 3)), max_size=30))
def test_counts_always_equal_a_recount(tmp_path_factory, operations):
    path = tmp_path_factory.mktemp("x")
    tracker = Tracker(path, durable=False)
    try:
        for operation, key, number in operations:
            if operation == "reopen":
                tracker.close()
                tracker = Tracker(path, durable=False)
            elif operation == "clone":
                with Tracker(path, durable=False) as clone:
                    operate(clone, "done", key, number)
                    assert recount(tracker) == (clone.num_done(), clone.num_tried(), clone.num_aborted())
            else:
                operate(tracker, operation, key, number)
            counts = (tracker.num_done(), tracker.num_tried(), tracker.num_aborted())
            assert counts == recount(tracker)
            assert set(tracker._index.flags) == set(tracker)
    finally:
        tracker.close()


def test_counts_are_right_when_it_is_reverted_beside_writers(tmp_path, monkeypatch):
    sleep = monkey.get_original("time", "sleep")
    with Tracker(tmp_path, sync_at=None, sync_interval=None) as tracker:
        tracker.add_many(range(100))
        tracker.sync()
        scan = engine.scan_store  # type: ignore[attr-defined]
        monkeypatch.setattr(engine, "scan_store", lambda *a, **k: (scan(*a, **k), sleep(0.05))[0])

        def mark():
            while True:
                for key in range(100):
                    tracker.mark_done(key)
                    gevent.sleep(0.001)

        marking = gevent.spawn(mark)
        for _ in range(3):
            tracker.revert()
            assert (tracker.num_done(), tracker.num_tried(), tracker.num_aborted()) == recount(tracker)
        gevent.sleep(0.01)
        marking.kill()
        assert tracker.num_done() == recount(tracker)[0] > 0


def test_marks_can_be_set_again_and_taken_back(tracker):
    tracker.add("a")
    for _ in range(2):
        tracker.mark_done("a")
        tracker.abort("a")
        assert (tracker.done("a"), tracker.aborted("a")) == (True, True)
        assert (tracker.num_done(), tracker.num_aborted()) == (1, 1)
    for _ in range(2):
        tracker.mark_not_done("a")
        tracker.unabort("a")
        assert tracker["a"] == NEW
        assert (tracker.num_done(), tracker.num_aborted()) == (0, 0)


def test_tries_never_go_below_zero(tracker):
    tracker.add("a")
    tracker.decrement_tries("a")
    assert (tracker.tries("a"), tracker.num_tried()) == (0, 0)
    tracker.increment_tries("a")
    tracker.increment_tries("a")
    assert (tracker.tries("a"), tracker.num_tried()) == (2, 1)
    tracker.reset_tries("a")
    assert (tracker.tries("a"), tracker.num_tried()) == (0, 0)


def test_fractions_and_percents(tracker):
    names = ("done", "tried", "aborted", "not_done", "not_tried", "not_aborted")
    assert [getattr(tracker, f"fraction_{name}")() for name in names] == [0.0] * 6
    assert tracker.percent_done() == "0.00 %"
    tracker.add_many(range(1000))
    for key in range(347):
        tracker.mark_done(key)
    tracker.increment_tries(0)
    tracker.abort(1)
    tracker.abort(2)
    assert [getattr(tracker, f"num_{name}")() for name in names] == [347, 1, 2, 653, 999, 998]
    assert [getattr(tracker, f"fraction_{name}")() for name in names] == [
        0.347,
        0.001,
        0.002,
        0.653,
        0.999,
        0.998,
    ]
    percents = [getattr(tracker, f"percent_{name}")() for name in names]
    assert percents == ["34.70 %", "0.10 %", "0.20 %", "65.30 %", "99.90 %", "99.80 %"]
    assert tracker.percent_not_done(decimals=0) == "65 %"


def test_g8_percent_shows_a_fraction(tracker):
    assert (tracker.percent(0.347), tracker.percent(0.5, 0)) == ("34.70 %", "50 %")


BAD = [5, None, "x", [], {"_done": 1}, {"_tries": -1}, {"_tries": True}, {"_tries": 1.0}, {"_aborted": None}]


@pytest.mark.parametrize("entry", BAD)
def test_what_is_no_task_is_a_type_error(tracker, entry):
    tracker.add("a")
    for assign in (
        lambda: tracker.__setitem__("x", entry),
        lambda: tracker.__setitem__("a", entry),
        lambda: tracker.update(x=entry),
        lambda: tracker.update(a=entry),
    ):
        with pytest.raises(TypeError):
            assign()
    assert dict(tracker) == {"a": NEW}


def test_marks_cannot_be_removed_or_made_something_else(tracker):
    tracker.add("a", {"note": "x"})
    for edit in (
        lambda: tracker.set["a"].__setitem__("_done", 1),
        lambda: tracker.set["a"].__setitem__("_tries", "x"),
        lambda: tracker.set["a"].__delitem__("_aborted"),
        lambda: tracker.set["a"].pop("_done"),
        tracker.set["a"].clear,
        lambda: tracker.set["a"].update(_tries=-1),
        lambda: tracker.amend("a", {"_done": "yes"}),
    ):
        with pytest.raises(TypeError):
            edit()
    assert tracker["a"] == NEW | {"note": "x"}
    assert tracker.num_done() == 0


def test_edits_in_place_are_held_to_it_too(tmp_path):
    with Tracker(tmp_path) as tracker:
        tracker.add("a", {"list": []})
        entry = tracker["a"]
        with pytest.raises(TypeError):
            entry["_tries"] = "x"
        with pytest.raises(TypeError):
            del entry["_done"]
        entry["list"].append(1)
        entry["_done"] = True
        assert (tracker["a"], tracker.num_done()) == (NEW | {"list": [1], "_done": True}, 1)


def test_own_fields_survive(tracker, tmp_path):
    tracker.add("a")
    tracker.set["a"]["outputs"] = ["x", {"y": 1}]
    tracker.mark_done("a")
    tracker.increment_tries("a")
    tracker.update(a={"more": 1})
    tracker["a"] = {"outputs": ["z"]}
    tracker.sync()
    assert tracker["a"] == {"_tries": 1, "_done": True, "_aborted": False, "outputs": ["z"]}
    with Tracker(tmp_path / "x.tracker", readonly=True) as stored:
        assert stored["a"] == tracker["a"]


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (True, 1), (0, False), (1, 1.0), ([1], [True]), (0.0, -0.0)], ids=repr
)
def test_a_field_is_set_to_what_is_equal_and_not_the_same(tracker, one, other):
    tracker.add("a", {"f": one, "g": 1})
    tracker.amend("a", {"f": other})
    assert repr(tracker["a"]["f"]) == repr(other)
    tracker.sync()
    tracker.amend("a", {"f": other, "g": 1})
    assert tracker.dirty() == set()


def test_looking_for_something_to_do_writes_nothing_and_is_quick(tmp_path):
    with Tracker(tmp_path) as tracker:
        tracker.add_many(range(20_000))
        tracker.sync()
        before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
        took = []
        for _ in range(5):
            began = time.process_time()  # what it takes, whatever else the machine does
            assert sum(1 for _ in tracker.todo_keys()) == 20_000
            took.append(time.process_time() - began)
        assert tracker.dirty() == set()
        tracker.sync()
        assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == before
    assert min(took) < 0.1


def test_tasks_that_are_added_meanwhile_are_given_too(tracker):
    tracker.add("http://a")
    seen = []
    for key in tracker.todo_keys():
        seen.append(key)
        if len(seen) < 5:
            tracker.add(f"http://{len(seen)}")
        tracker.mark_done(key)
    assert seen == ["http://a", "http://1", "http://2", "http://3", "http://4"]


WALKS = [
    "todo_items",
    "todo_values",
    "try_keys",
    "try_items",
    "try_values",
    "aborted_items",
    "aborted_values",
]


@pytest.mark.parametrize("name", WALKS)
def test_what_is_removed_during_a_walk_is_left_out(tracker, name):
    tracker.update((number, {"_aborted": name.startswith("aborted")}) for number in range(5))
    given = 0
    for _ in getattr(tracker, name)():
        tracker.pop(2 * given + 1, None)  # the next one
        given += 1
    assert given == 3


@pytest.mark.parametrize(
    ("owner", "step"), [(TaskIndex, "should_do"), (Tracker, "__getitem__"), (Tracker, "should_try")]
)
def test_what_another_thread_removes_at_any_moment_is_left_out(tmp_path, monkeypatch, owner, step):
    real = getattr(owner, step)

    def meanwhile(self, key, *arguments, **options):
        if key == "b" and key in tracker:
            del tracker[key]
        return real(self, key, *arguments, **options)

    with Tracker(tmp_path) as tracker:
        tracker.add_many("abc")
        monkeypatch.setattr(owner, step, meanwhile)
        assert list(tracker.try_items(due=1.0)) == [("a", NEW | {"_tries": 1}), ("c", NEW | {"_tries": 1})]


def test_max_tries_is_kept_and_another_one_wins_and_is_logged(tmp_path, caplog):
    with Tracker(tmp_path, max_tries=3) as tracker:
        tracker.add("a")
    with Tracker(tmp_path) as tracker:
        assert tracker.max_tries == 3
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING), Tracker(tmp_path, max_tries=5) as tracker:
        assert tracker.max_tries == 5
        with Tracker(tmp_path, max_tries=6) as clone:
            assert clone.max_tries == tracker.max_tries == 6
    assert "max_tries is 5 from now on; the tracker was made with 3" in caplog.text
    with Tracker(tmp_path) as tracker:
        assert tracker.max_tries == 6


def test_a_pod_is_no_tracker_but_can_be_made_one(tmp_path):
    with POD(tmp_path / "pod", {"a": {"n": 1}, "b": 5, ("c", 1): {"_done": True}}) as pod:
        pod.sync()
        with pytest.raises(ValueError, match="is already open as a pod"):
            Tracker(tmp_path / "pod")
        with Tracker.from_pod(pod, tmp_path / "tracker", max_tries=3) as tracker:
            assert dict(tracker) == {
                "a": NEW | {"n": 1},
                "b": NEW | {"value": 5},
                ("c", 1): NEW | {"_done": True},
            }
            assert tracker.num_done() == 1
    with pytest.raises(StoreError, match=r"this is a POD, not a tracker: Tracker.from_pod\(\) makes one"):
        Tracker(tmp_path / "pod")
    with Tracker(tmp_path / "tracker") as tracker:
        assert len(tracker) == tracker.max_tries == 3


def test_a_pod_with_what_is_no_task_makes_no_half_tracker(tmp_path):
    with POD(tmp_path / "pod", {"a": {"note": "x"}, "b": {"_done": 5}}) as pod:
        with pytest.raises(TypeError, match="_done of 'b'"):
            Tracker.from_pod(pod, tmp_path / "x")
        del pod["b"]
        with Tracker.from_pod(pod, tmp_path / "x", durable=False) as tracker:  # nobody had it
            assert dict(tracker) == {"a": NEW | {"note": "x"}}


def test_a_pod_of_tastypys_is_no_tracker_either(tmp_path):
    (tmp_path / "0.json").write_bytes((GOLDEN / "pod-basic" / "0.json").read_bytes())
    with pytest.raises(
        StoreError, match=r"not a tracker: task 'couch:orders' must have _tries, _done, _aborted"
    ):
        Tracker(tmp_path)


TUTORIAL = ROOT / "docs" / "tutorial" / "stores.md"


def crawler():
    """The crawler of the tutorial, as its readers copy it."""
    [script] = re.findall(r"```python title=crawl.py\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    return script


def test_the_tutorials_crawler_is_killed_half_way_and_resumed(tmp_path):
    """Every page is fetched and done; one that was being fetched when the power went is tried again."""
    path, log = tmp_path / "urls.tracker", tmp_path / "log"
    process = start(crawler(), path, log, "slowly")
    try:
        deadline = time.monotonic() + 60
        while not log.exists() or len(log.read_text().split()) < 8:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        kill(process)
    before = log.read_text().split()
    output = run(crawler(), path, log)
    fetched = log.read_text().split()
    with Tracker(path) as tracker:
        assert tracker.num_done() == len(tracker) == len(set(fetched))
        assert len(before) < len(tracker)
        again = [url for url in set(fetched) if fetched.count(url) > 1]
        # The page that was being fetched, and the one before, whose mark goes to disk with the next try.
        assert set(again) <= set(before[-2:])
        assert all(tracker.tries(url) >= fetched.count(url) for url in tracker)
    assert "100.00 %" in output


def test_failed_changes_are_kept_with_their_errors_and_tried_when_due(tmp_path):
    with Tracker(tmp_path, max_tries=3) as letters:
        letters.add(("cases", "pg", "doc1"), {"error": "no such column", "next_retry_at": 100.0})
        letters.add(("cases", "pg", "doc2"), {"error": "too large", "next_retry_at": 200.0})
        letters.add(("cases", "es", "doc3"), {"error": "mapping"})
        assert list(letters.try_keys(due=99.9)) == [("cases", "es", "doc3")]
        assert list(letters.todo_keys(due=100.0)) == [("cases", "pg", "doc1"), ("cases", "es", "doc3")]
        assert [key[2] for key, entry in letters.try_items(due=150.0) if "column" in entry["error"]] == [
            "doc1"
        ]
        letters.amend(("cases", "pg", "doc1"), {"next_retry_at": 300.0, "error": "still no such column"})
        assert ("cases", "pg", "doc1") not in letters.todo_keys(due=250.0)
        assert letters.should_do(("cases", "pg", "doc1")) is True
        assert letters.should_try(("cases", "pg", "doc1"), due=250.0) is False
    with Tracker(tmp_path, readonly=True) as letters:
        entry = letters["cases", "pg", "doc1"]
        assert (entry["error"], entry["_tries"], entry["next_retry_at"]) == ("still no such column", 1, 300.0)
        assert json.loads(json.dumps(entry)) == entry


@pytest.mark.parametrize("kind", [POD, Tracker])
def test_a_file_that_holds_nothing_is_refused_before_anything_is_made(tmp_path, kind):
    with pytest.raises(ValueError, match="file_size must be at least 1, not 0"):
        kind(tmp_path / "store", file_size=0)
    assert not (tmp_path / "store").exists()
