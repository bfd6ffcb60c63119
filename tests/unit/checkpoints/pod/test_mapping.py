"""What a store is as a dictionary: the same in this process (POD) and through the socket (SharedPOD)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import POD
from tests.support.sizes import size

KEYS = [
    "1",
    1,
    -7,
    ("a", 1),
    ("a", ("b", 2)),
    (),
    "",
    "tab\t",
    "nl\n",
    "\\",
    "\\t",
    '"q"',
    "üñ☃",
    "\u2028",
    "\ud800",
]


def test_keys_keep_the_order_of_their_first_insertion(pod, tmp_path):
    pod.update([("c", 1), ("a", 1), ("b", 1)])
    pod["c"] = 2
    pod["d"] = 1
    del pod["a"]
    pod["a"] = 3
    assert list(pod) == ["c", "b", "d", "a"]
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert list(stored.items()) == [("c", 2), ("b", 1), ("d", 1), ("a", 3)]


def test_keys_keep_their_types_and_characters(pod, tmp_path):
    pod.update([(key, number) for number, key in enumerate(KEYS)])
    expected = list(zip(KEYS, range(len(KEYS)), strict=True))
    assert list(pod.items()) == expected
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert list(stored.items()) == expected
        assert [type(key) for key in stored] == [type(key) for key in KEYS]


@pytest.mark.parametrize("key", [1.5, None, b"x", True, False, ("a", None), ("a", True), frozenset(), ["a"]])
def test_what_cannot_be_a_key_is_a_type_error_that_names_it(pod, key):
    pod[1] = "one"
    with pytest.raises(TypeError, match="a key is a str, an int or a tuple"):
        pod[key] = 1
    with pytest.raises(TypeError):
        pod.update({"fine": 1}, [(key, 1)])
    assert dict(pod) == {1: "one"}
    assert key not in pod


@pytest.mark.parametrize("key", [True, 1.0, [1], (True,), (1.0,)])
def test_what_cannot_be_a_key_is_not_taken_for_one_that_is_equal(pod, key):
    pod.update([(1, "one"), ((1,), "tuple")])
    pod.sync()
    for use in (
        lambda: pod[key],
        lambda: pod.__delitem__(key),
        lambda: pod.pop(key, None),
        lambda: pod.setdefault(key, "other"),
        lambda: pod.mark_dirty(key),
        lambda: pod.sync_key(key),
    ):
        with pytest.raises(TypeError, match="a key is a str, an int or a tuple"):
            use()
    assert dict(pod) == {1: "one", (1,): "tuple"}
    assert pod.dirty() == set()


def test_a_value_is_the_same_before_and_after_reload(pod, tmp_path):
    pod["k"] = {1: (1, (2,)), None: {True: "é"}}
    assert pod["k"] == {"1": [1, [2]], "null": {"true": "é"}}
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert stored["k"] == pod["k"]


CYCLE: list[object] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, object(), [b"x"], {(1,): 1}, CYCLE], ids=repr
)
def test_what_cannot_be_stored_is_refused_at_the_assignment(pod, value, tmp_path):
    pod["ok"] = {"a": 1}
    pod.sync()
    for store in (
        lambda: pod.update({"also": 1, "bad-key": value}),
        lambda: pod.__setitem__("bad-key", value),
    ):
        with pytest.raises((TypeError, ValueError), match="'bad-key'"):
            store()
    with pytest.raises((TypeError, ValueError)):
        pod.set["ok"]["a"] = value
    assert dict(pod) == {"ok": {"a": 1}}
    pod["next"] = 1
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert dict(stored) == {"ok": {"a": 1}, "next": 1}


def nested(depth, kind=list):
    value: Any = {"x": "[[[["} if kind is dict else ["[[[["]
    for _ in range(depth - 1):
        value = {"x": value} if kind is dict else [value]
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_values_are_nested_100_deep_at_most(pod, tmp_path, kind):
    pod["k"] = nested(100, kind)
    pod["part"] = {"x": 1}
    pod.set["part"]["x"] = nested(99, kind)
    pod.sync()
    for store in (
        lambda: pod.__setitem__("k", nested(101, kind)),
        lambda: pod.update(k=nested(400, kind)),
        lambda: pod.setdefault("new", nested(5000, kind)),
        lambda: pod.set["part"].__setitem__("x", nested(100, kind)),
        lambda: pod.set["part"].update(y=nested(100, kind)),
    ):
        with pytest.raises(ValueError, match="cannot be stored: it is nested more than 100 deep"):
            store()
    expected = {"k": nested(100, kind), "part": {"x": nested(99, kind)}}
    assert dict(pod) == expected
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert dict(stored) == expected


def test_keys_are_nested_100_deep_at_most(pod, tmp_path):
    key: Any = "x"
    for _ in range(100):
        key = (key,)
    pod[key] = 1
    with pytest.raises(TypeError, match="nested more than 100 deep"):
        pod[key,] = 1
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert dict(stored) == {key: 1}


def test_set_changes_deep_values_in_one_step(pod):
    pod.update(a={"b": 1, "list": [1, 2, 3, 4]}, n=1)
    pod.set["a"]["b"] += 1
    pod.set["a"]["list"].append(5)
    pod.set["a"]["list"][0:2] = [9]
    del pod.set["a"]["list"][-1]
    pod.set["a"]["list"] *= 2
    pod.set["a"]["new"] = {"x": (1,)}
    pod.set["n"] -= 3
    pod.set["m"] = [1]
    pod.set["m"] += [2]
    assert pod.set["a"]["new"].pop("x") == [1]
    pod.set["a"].update({"u": 1}, v=2)
    del pod.set["a"]["u"]
    assert pod["a"] == {"b": 2, "list": [9, 3, 4, 9, 3, 4], "new": {}, "v": 2}
    assert (pod["n"], pod["m"]) == (-2, [1, 2])
    assert pod.dirty() == {"a", "n", "m"}


def test_e4_set_calls_the_methods_of_the_whole_store(pod):
    pod.set.update({1: [1], ("a", 2): {"x": 1}}, b=3)
    pod.set.update([("c", 4)])
    assert pod.set.pop("c") == 4
    assert pod.set.pop("c", None) is None
    assert pod.set.setdefault(1, []) == [1]
    assert pod.set.get(("a", 2)) == {"x": 1}
    with pytest.raises(KeyError):
        pod.set.pop("c")
    assert dict(pod) == {1: [1], ("a", 2): {"x": 1}, "b": 3}
    assert pod.set.popitem() == (1, [1])
    pod.set.clear()
    assert len(pod) == 0
    with pytest.raises(AttributeError, match="has no 'close'"):
        pod.set.close()


def test_e4_set_takes_any_iterable_as_a_list_and_a_dict_do(pod):
    pod.update(list=[], dict={}, deep={"list": [0]})
    pod.set["list"].extend(range(3))
    pod.set["list"] += (number for number in (3, 4))
    pod.set["list"] += {"a": 1}.keys()
    pod.set["deep"]["list"][0:1] = range(2)
    pod.set["dict"].update(zip(["a", "b"], range(2), strict=True))
    pod.set["dict"].update(OrderedDict(c=2))
    pod.set["dict"] |= {"d": 3}.items()
    assert pod["list"] == [0, 1, 2, 3, 4, "a"]
    assert pod["deep"] == {"list": [0, 1]}
    assert pod["dict"] == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_e4_set_stores_no_set_as_a_list(pod):
    pod.update(list=[])
    with pytest.raises(TypeError, match="'list' cannot be stored"):
        pod.set["list"].append({1})
    with pytest.raises(TypeError, match="not iterable"):
        pod.set["list"].extend(3)
    assert pod["list"] == []


def test_set_says_what_cannot_be_done(pod):
    pod.update(a={"b": 1, "list": [1]})
    with pytest.raises(KeyError):
        pod.set["missing"]["b"] += 1
    with pytest.raises(KeyError):
        del pod.set["a"]["missing"]
    with pytest.raises(IndexError):
        pod.set["a"]["list"][7] = 1
    with pytest.raises(TypeError):
        pod.set["a"]["b"] += "x"
    with pytest.raises(AttributeError, match="has no 'format'"):
        pod.set["a"]["b"].format()
    with pytest.raises(TypeError):
        list(pod.set)
    assert pod["a"] == {"b": 1, "list": [1]}


def test_sync_key_writes_the_file_of_the_key_and_leaves_the_others_dirty(request, pod):
    pod.update({f"k{number}": number for number in range(2500)})
    pod.sync()
    pod.update(k1=-1, k2=-2, k1500=-3)
    pod.sync_key("k1")
    assert pod.dirty() == {"k1500"}
    with pytest.raises(KeyError):
        pod.sync_key("ghost")


def test_marking_what_is_not_there_is_a_key_error_and_harms_no_sync(pod):
    with pytest.raises(KeyError):
        pod.mark_dirty("ghost")
    pod["a"] = 1
    pod.sync()
    pod.mark_dirty("a")
    assert pod.dirty() == {"a"}
    pod.sync()
    assert pod.dirty() == set()


def test_nothing_is_written_while_it_is_held(pod, tmp_path):
    def files():
        return {file.name: file.read_bytes() for file in (tmp_path / "x.pod").glob("*.json")}

    pod["a"] = 1
    pod.sync()
    before = files()
    pod.hold()
    for number in range(500):
        pod["a"] = number
    assert files() == before
    pod.unhold()
    assert files() != before
    assert pod.dirty() == set()


def test_revert_gives_what_is_on_disk(pod):
    pod.update(b=1, a=2)
    pod.sync()
    pod.update(c=3, b=9)
    del pod["a"]
    pod.set["b"] += 1
    pod.revert()
    assert list(pod.items()) == [("b", 1), ("a", 2)]
    assert pod.dirty() == set()
    pod["c"] = 4
    assert list(pod) == ["b", "a", "c"]


def test_later_entries_win_and_fields_are_last(pod):
    pod.update({"a": 1, "b": 1, "c": 1}, [("b", 2), ("c", 2)], c=3)
    assert list(pod.items()) == [("a", 1), ("b", 2), ("c", 3)]


def test_whatever_a_dict_does_works_and_persists(pod, tmp_path):
    pod.update({f"k{number}": number for number in range(10)})
    assert pod.pop("k1") == 1
    assert pod.pop("k1", "gone") == "gone"
    assert pod.get("k1") is None
    assert pod.get("k2", 7) == 2
    assert pod.setdefault("k2", 7) == 2
    assert pod.setdefault("new", [7]) == [7]
    assert pod == {"k0": 0} | {f"k{number}": number for number in range(2, 10)} | {"new": [7]}
    with pytest.raises(KeyError):
        del pod["k1"]
    with pytest.raises(KeyError):
        pod["k1"]
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert list(stored.items()) == list(pod.items())
    pod.clear()
    assert len(pod) == 0
    assert list(pod) == []
    pod.sync()
    with POD(tmp_path / "x.pod", readonly=True) as stored:
        assert dict(stored) == {}


def test_setdefault_gives_what_is_stored(pod):
    assert pod.setdefault("k", (1, {2: 3})) == pod["k"] == [1, {"2": 3}]
    assert pod.setdefault("k", "other") == [1, {"2": 3}]
    assert pod.setdefault("none") is pod["none"] is None


def test_popitem_takes_the_first(pod):
    pod.update([(("b", 1), [1]), ("a", None)])
    assert [pod.popitem(), pod.popitem()] == [(("b", 1), [1]), ("a", None)]
    with pytest.raises(KeyError):
        pod.popitem()


def test_pop_gives_null_as_what_it_is(pod):
    pod["a"] = None
    assert pod.pop("a", 7) is None
    with pytest.raises(KeyError, match="a"):
        pod.pop("a")


def test_iterators_go_in_order(pod):
    pod.update(b=[1], a=2)
    assert list(pod.iterkeys()) == list(pod.keys()) == ["b", "a"]
    assert list(pod.itervalues()) == list(pod.values()) == [[1], 2]
    assert list(pod.iteritems()) == list(pod.items()) == [("b", [1]), ("a", 2)]


def test_keys_may_be_added_and_removed_while_they_are_walked(pod):
    pod.update({f"k{number}": number for number in range(5)})
    seen = []
    for key in pod:
        seen.append(key)
        if key == "k1":
            pod["new"] = 1
            del pod["k0"]
    assert seen == ["k0", "k1", "k2", "k3", "k4", "new"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
    max_leaves=8,
)
SOME_KEYS = st.recursive(
    st.text() | st.integers(), lambda part: st.tuples(part, part) | st.tuples(part), max_leaves=3
)


@settings(
    max_examples=size(ci=40, proof=400),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(SOME_KEYS, JSON, max_size=5), st.dictionaries(SOME_KEYS, JSON, max_size=3))
def test_any_json_comes_back_as_it_was(tmp_path_factory, first, second):
    path = tmp_path_factory.mktemp("x")
    with POD(path, first, durable=False) as pod:
        pod.update(second)
        pod.sync()
        with POD(path, readonly=True) as stored:
            assert dict(stored) == first | second
            assert list(stored) == list(first | second)
