"""What a commit writes, in which order, and what is known of the files before and after it."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from checkpoints.errors import StoreWriteError
from checkpoints.pod.commit import Commit, DiskState
from checkpoints.pod.engine import Settings, StoreEngine
from checkpoints.pod.memtable import DirtySegments
from checkpoints.pod.metadata import StoreMetadata
from checkpoints.pod.segment_map import SegmentMap
from checkpoints.pod.segments import StoreScan
from tests.unit.checkpoints.power_loss import Disk

LINE = b'"a"\t1'


class Recorded:
    """A directory that notes what is done to it."""

    def __init__(self):
        self.done = []
        self.data = {}

    def replace(self, name, data):
        self.done.append(name)
        self.data[name] = data

    def remove(self, name):
        self.done.append(f"-{name}")

    def sync(self):
        self.done.append("sync")


def execute(**parts):
    directory: Any = Recorded()
    Commit(**({"gzipped": False} | parts)).execute(directory)
    return directory


ORDERS = {
    "nothing": ({}, []),
    "known segments, one sync": (
        {"segments": {1: [LINE], 0: [LINE]}, "first_new": 2},
        ["0.json", "1.json", "sync"],
    ),
    "new segments, a sync each": (
        {"segments": {0: [LINE], 2: [LINE], 3: [LINE]}, "first_new": 2},
        ["0.json", "2.json", "sync", "3.json", "sync"],
    ),
    "moved keys, a sync each": (
        {"segments": {0: [LINE], 1: [LINE]}, "first_new": 0},
        ["0.json", "sync", "1.json", "sync"],
    ),
    "removals from the last": ({"removals": range(1, 3)}, ["-2.json", "sync", "-1.json", "sync"]),
    "metadata around": (
        {"before": b"b", "segments": {0: [LINE]}, "first_new": 1, "removals": range(1, 2), "after": b"a"},
        [".meta", "sync", "0.json", "sync", "-1.json", "sync", ".meta", "sync"],
    ),
}


@pytest.mark.parametrize(("parts", "order"), ORDERS.values(), ids=ORDERS)
def test_a_commit_writes_in_an_order_that_a_crash_may_cut(parts, order):
    assert execute(**parts).done == order


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, False),
        ({"counts": [1]}, False),
        ({"segments": {0: []}}, True),
        ({"removals": range(1)}, True),
        ({"before": b"x"}, True),
        ({"after": b"x"}, True),
    ],
)
def test_a_commit_knows_whether_it_has_anything_to_do(parts, expected):
    assert bool(Commit(gzipped=False, **parts)) is expected


@pytest.mark.parametrize("lines", [[], [LINE], [LINE, LINE]])
def test_each_line_of_a_segment_ends_with_a_newline(lines):
    content = b"".join(line + b"\n" for line in lines)
    assert execute(segments={0: lines}).data["0.json"] == content
    compressed = execute(segments={0: lines}, gzipped=True).data["0.json.gz"]
    assert gzip.decompress(compressed) == content
    assert compressed[4:8] == bytes(4)  # no time: the same content is the same file


def state(*counts, meta=None, hooks=None, file_size=2):
    scan = StoreScan(segment_map=SegmentMap(file_size), counts=list(counts))
    if meta is not None:
        scan.meta = StoreMetadata(file_size=file_size, counts=tuple(meta))
    return DiskState(scan, hooks)


def dirty(length, *, moved=False, **lines):
    segments = {int(name[1:]): [LINE] * count for name, count in lines.items()}
    return DirtySegments(segments=segments, length=length, moved=moved)


def counts_of(meta):
    return None if meta is None else list(StoreMetadata.decode(meta).counts)


#: known counts, `.meta`'s bounds, what is dirty -> first_new, removals, counts, bounds before, bounds after
PLANS = {
    "an update": ((2, 1), (2, 1), dirty(2, s1=1), (2, range(0), [2, 1], None, None)),
    "an added line": ((2, 1), (2, 1), dirty(2, s1=2), (2, range(0), [2, 2], None, [2, 2])),
    "a new segment": ((2,), (2,), dirty(2, s1=1), (1, range(0), [2, 1], None, [2, 1])),
    "a removed line": ((2, 2), (2, 2), dirty(2, s1=1), (2, range(0), [2, 1], [2, 1], None)),
    "a removed segment": ((2, 2, 1), (2, 2, 1), dirty(2, s1=2), (3, range(2, 3), [2, 2], [2, 2], None)),
    "removed and added": ((2, 1), (2, 1), dirty(2, s0=1, s1=2), (2, range(0), [1, 2], [1, 1], [1, 2])),
    "keys that moved": ((2, 2), (2, 2), dirty(1, s0=2, moved=True), (0, range(1, 2), [2], [2], None)),
    "without .meta": ((2, 1), None, dirty(2, s1=1), (2, range(0), [2, 1], [2, 1], None)),
    "an earlier segment alone": (
        (2, 2, 1),
        (2, 2, 1),
        dirty(3, s0=1),
        (3, range(0), [1, 2, 1], [1, 2, 1], None),
    ),
    "nothing": ((2, 1), (2, 1), dirty(2), (2, range(0), [2, 1], None, None)),
    "a segment between": ((2,), (2,), dirty(3, s2=1), (1, range(0), [2, 0, 1], None, [2, 0, 1])),
    "a gap that is filled": ((), None, dirty(2, s0=2, s1=1), (0, range(0), [2, 1], [], [2, 1])),
}


@pytest.mark.parametrize(("counts", "meta", "taken", "expected"), PLANS.values(), ids=PLANS)
def test_a_plan_lowers_the_bounds_before_and_raises_them_after(counts, meta, taken, expected):
    commit = state(*counts, meta=meta).plan(taken)
    assert (
        commit.first_new,
        commit.removals,
        commit.counts,
        counts_of(commit.before),
        counts_of(commit.after),
    ) == expected
    assert commit.segments is taken.segments
    assert commit.gzipped is False


def test_segments_beyond_a_partial_commit_are_not_removed():
    commit = state(2, 2, meta=(2, 2)).plan(dirty(5, s0=2))
    assert (commit.removals, commit.counts) == (range(0), [2, 2])


def test_after_a_commit_its_counts_are_known_and_metadata_is_not_written_again():
    known = state(2, meta=(2,))
    known.commit_succeeded(known.plan(dirty(2, s1=1)))
    assert known.bounds == [2, 1]
    commit = known.plan(dirty(2, s1=1))
    assert (commit.before, commit.after, commit.first_new) == (None, None, 2)


def test_after_removals_there_is_nothing_left_to_remove():
    known = state(2, 2, 2, meta=(2, 2, 2))
    known.commit_succeeded(known.plan(dirty(1, s0=2)))
    assert known.plan(dirty(1, s0=2)).removals == range(0)


def test_after_a_failed_commit_only_what_holds_for_both_is_known():
    known = state(2, 2, meta=(2, 2))
    known.commit_failed(known.plan(dirty(3, s1=1, s2=2)))
    assert known.bounds == [2, 1]
    commit = known.plan(dirty(2, s0=2))
    assert counts_of(commit.before) == [2, 1]  # which `.meta` is there is not known
    assert commit.removals == range(2, 3)  # the third segment may be there


def test_after_a_failed_removal_the_files_may_still_be_there():
    known = state(2, 2, 2, meta=(2, 2, 2))
    known.commit_failed(known.plan(dirty(1, s0=2)))
    assert known.bounds == [2]
    assert known.plan(dirty(1, s0=2)).removals == range(1, 3)


@pytest.mark.parametrize("counts", [(), (2, 1)])
def test_a_store_without_metadata_gets_it_only_with_something_else(counts):
    made = state(*counts)
    assert not made.plan(dirty(len(counts)))
    made.rewrite_metadata()
    assert made.plan(dirty(len(counts)))


def test_metadata_is_written_with_nothing_else_when_settings_changed():
    class Hooks:
        kind = "tracker"

        def settings(self):
            return {"max_tries": 7}

    known = state(2, meta=(2,), hooks=Hooks())
    assert not known.plan(dirty(1))
    known.rewrite_metadata()
    commit = known.plan(dirty(1))
    assert bool(commit)
    written = StoreMetadata.decode(commit.before)
    assert (written.kind, written.settings, written.counts) == ("tracker", {"max_tries": 7}, (2,))
    known.commit_succeeded(commit)
    assert not known.plan(dirty(1))


def test_metadata_names_a_pod_its_file_size_and_its_compression():
    known = state(meta=None, file_size=5)
    written = json.loads(known.plan(dirty(1, s0=1)).after)
    assert (written["kind"], written["file_size"], written["gzipped"], written["settings"]) == (
        "pod",
        5,
        False,
        {},
    )


@pytest.fixture
def engine():
    disk = Disk({})
    settings = Settings(file_size=2, sync_at=None, sync_interval=None)
    return StoreEngine(disk, settings, None)


def test_what_a_refused_commit_took_is_dirty_again_and_written_by_the_next(engine):
    engine.memory.put([("a", 1), ("b", 2), ("c", 3)])
    engine.directory.fail(OSError(28, "No space left on device"), 0)
    with pytest.raises(StoreWriteError, match=r"cannot write /disk: .*No space left"):
        engine.sync(["a"])
    assert engine.memory.dirty == {"a", "b", "c"}
    assert engine.memory.writes == 3
    engine.sync(["a"])  # those who waited for the failed one get everything
    assert engine.memory.dirty == set()
    assert engine.memory.writes == 0
    assert sorted(engine.directory.names()) == [".meta", "0.json", "1.json"]


def test_a_key_alone_is_written_with_the_segments_before_it(engine):
    engine.memory.put([(key, 1) for key in "abcde"])
    engine.sync(["c"])
    assert engine.memory.dirty == {"e"}
    assert sorted(engine.directory.names()) == [".meta", "0.json", "1.json"]
    engine.memory.put([("a", 2)])
    engine.sync(["e"])
    assert engine.memory.dirty == {"a"}


def test_a_removed_key_is_dirty_until_its_segment_is_written(engine):
    engine.memory.put([("a", 1), ("b", 2), ("c", 3)])
    engine.sync()
    engine.memory.remove("a")
    assert engine.memory.dirty == {"a"}
    engine.sync(["a"])
    assert engine.memory.dirty == set()
    assert engine.directory.read("0.json") == b'"b"\t2\n'


def test_closed_holes_are_written_and_their_files_removed(engine):
    engine.memory.put([(key, 1) for key in "abcdefghij"])
    engine.sync()
    for key in "bcdefghi":
        engine.memory.remove(key)
    engine.sync()
    assert engine.directory.read("0.json") == b'"a"\t1\n"j"\t1\n'
    assert sorted(engine.directory.names()) == [".meta", "0.json"]
    again = StoreEngine(engine.directory, engine.settings, None)
    assert [key for _, key in again.memory.after(-1, 10)] == ["a", "j"]


@pytest.mark.parametrize("file_size", [0, -1])
def test_a_file_holds_at_least_a_line(file_size):
    with pytest.raises(ValueError, match=f"file_size must be at least 1, not {file_size}"):
        Settings(file_size=file_size)


def test_metadata_is_written_only_if_the_counts_have_changed():
    known = state(2, 1, meta=(2, 1))
    for _ in range(2):
        update = known.plan(dirty(2, s1=1))
        assert (update.before, update.after) == (None, None)
        known.commit_succeeded(update)
    known.rewrite_metadata()
    rewritten = known.plan(dirty(2))
    assert counts_of(rewritten.before) == [2, 1]
    known.commit_succeeded(rewritten)
    assert known.plan(dirty(2, s1=1)).before is None


def test_after_a_failed_commit_metadata_is_written_again():
    known = state(2, 1, meta=(2, 1))
    known.commit_failed(known.plan(dirty(2, s1=1)))
    assert counts_of(known.plan(dirty(2, s1=1)).before) == [2, 1]
