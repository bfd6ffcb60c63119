"""The files of a store: tastypy's format, what is wrong with them and where, repairing into a copy."""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
import stat
from pathlib import Path

import pytest

from checkpoints import POD, IntegrityError, NewerFormat, StoreError, Tracker, check, repair
from checkpoints.files.directory import Directory
from checkpoints.pod.codec import parse_line
from checkpoints.pod.metadata import META
from daemon.cli.main import run_command
from tests.unit.checkpoints import tastypy_reader
from tests.unit.checkpoints.scripts import GOLDEN

BASIC = [
    ("couch:orders", {"ts": 1.5, "seq": "42-g1AAAA", "n": 3}),
    (1, {"1": 1}),
    ("none", None),
    ("list", [1, [2, 3], "é"]),
]
EXPECTED = {
    "pod-basic": BASIC,
    "pod-gz": BASIC,
    "pod-keys": [tuple(pair) for pair in json.loads((GOLDEN / "pod-keys.expected.json").read_text())],
    "pod-files-of-3": [(f"k{number}", "updated" if number == 1 else number) for number in range(8)],
    "tracker": [
        ("a", {"_aborted": False, "_tries": 1, "_done": True}),
        ("b", {"_aborted": True, "_tries": 0, "_done": False}),
        ("c", {"_aborted": False, "note": "x", "_tries": 0, "_done": False}),
    ],
}


@pytest.fixture
def golden(tmp_path):
    """Copies a directory that the real tastypy wrote; `pod-gz` is `pod-basic` with the file compressed."""
    return lambda name: Path(shutil.copytree(GOLDEN / name, tmp_path / name))


@pytest.fixture
def path(tmp_path):
    """A store of eight keys in three files."""
    with POD(tmp_path / "x", {f"k{number}": number for number in range(8)}, file_size=3):
        pass
    return tmp_path / "x"


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("readonly", [False, True])
def test_what_tastypy_wrote_opens_with_equal_items(golden, name, readonly):
    path = golden(name)
    before = contents(path)
    with POD(path, readonly=readonly) as pod:
        assert list(pod.items()) == EXPECTED[name]
        assert [type(key) for key in pod] == [type(key) for key, _ in EXPECTED[name]]
    assert contents(path).items() >= before.items()


@pytest.mark.parametrize(
    ("name", "file_size"), [("pod-basic", 1000), ("pod-keys", 1000), ("pod-files-of-3", 3)]
)
def test_what_is_saved_again_is_what_tastypy_reads(golden, name, file_size):
    with POD(golden(name)) as pod:
        first = next(iter(pod))
        pod[first] = {"new": "\t\\é"}
        pod["added\t\\"] = 1
        path = pod.path
    items = EXPECTED[name]
    expected = [(first, {"new": "\t\\é"}), *items[1:], ("added\t\\", 1)]
    assert tastypy_reader.read(path, file_size=file_size) == expected
    original = (GOLDEN / name / "0.json").read_text().split("\n")
    again = (path / "0.json").read_text().split("\n")
    assert [line.split("\t")[0] for line in again[: len(original) - 1]] == [
        line.split("\t")[0] for line in original[:-1]
    ]


def test_files_are_read_as_utf_8_and_nan_of_old_is_kept(tmp_path):
    (tmp_path / "0.json").write_text('"é"\t"☃"\n"old"\tNaN\n')
    with POD(tmp_path) as pod:
        assert pod["é"] == "☃"
        pod["new"] = 1
    assert (tmp_path / "0.json").read_text() == '"é"\t"☃"\n"old"\tNaN\n"new"\t1\n'


def test_a_value_that_holds_a_nan_of_old_can_be_changed(tmp_path):
    (tmp_path / "0.json").write_text('"k"\t{"x": NaN}\n"b"\t1\n')
    with POD(tmp_path, sync_at=None, sync_interval=None) as pod:
        pod["k"]["y"] = 1
        pod["b"] = 2
        pod.sync()
        assert pod.dirty() == set()
        assert (tmp_path / "0.json").read_text() == '"k"\t{"x": NaN, "y": 1}\n"b"\t2\n'
        with pytest.raises(ValueError, match="'k' cannot be stored"):
            pod["k"]["x"] += 1


@pytest.fixture
def calls(monkeypatch):
    """The calls to the disk, in order."""
    made = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(fd):
        made.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        fsync(fd)

    def recorded_rename(source, target, **directories):
        made.append(f"rename {source} {target}")
        rename(source, target, **directories)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    return made


def test_the_file_is_synced_before_the_rename_and_the_directory_after(path, calls):
    with POD(path) as pod:
        pod["k0"] = 1
        pod.sync()
        pid = os.getpid()
        assert calls == [f"fsync 0.json.tmp-{pid}", f"rename 0.json.tmp-{pid} 0.json", "fsync x"]


def test_without_durable_nothing_is_synced(path, calls):
    with POD(path, durable=False) as pod:
        pod["k0"] = 1
        pod.sync()
    assert calls == [f"rename 0.json.tmp-{os.getpid()} 0.json"]


def test_what_a_store_says_about_itself_is_raised_after_lines_are_added(path, calls):
    with POD(path) as pod:
        pod["k8"] = 8
        pod.sync()
        renamed = [call.split()[-1] for call in calls if call.startswith("rename")]
        assert renamed == ["2.json", ".meta"]
        pod["k8"] = 9
        pod.sync()
        renamed = [call.split()[-1] for call in calls if call.startswith("rename")]
        assert renamed == ["2.json", ".meta", "2.json"]
    meta = json.loads((path / ".meta").read_text())
    assert (meta["segments"], meta["last"]) == (3, 3)


def test_and_lowered_before_lines_are_removed(path, calls):
    with POD(path) as pod:
        del pod["k4"]
        pod.sync()
    assert [call.split()[-1] for call in calls if call.startswith("rename")] == [".meta", "1.json"]
    meta = json.loads((path / ".meta").read_text())
    assert (meta["segments"], meta["last"], meta["short"]) == (3, 2, {"1": 2})
    assert check(path) == []


def test_what_a_crash_left_is_ignored_and_removed(path):
    left = ["0.json.tmp-1", "7.json.tmp-99999", "3.json.gz.tmp-4", ".meta.tmp-12"]
    for name in left:
        (path / name).write_text("half a li")
    with POD(path, readonly=True) as pod:
        assert len(pod) == 8
    assert set(left) <= set(contents(path))
    with POD(path) as pod:
        assert len(pod) == 8
    assert not set(left) & set(contents(path))


def test_foreign_files_are_ignored(path):
    foreign = [
        "0.json.bak",
        "README",
        ".hidden",
        "x1.json",
        "01.json",
        "5.jsonl",
        "5_json",
        "9.json~",
        ".socket",
    ]
    for name in foreign:
        (path / name).write_text("something")
    with POD(path) as pod:
        assert len(pod) == 8
        pod["new"] = 1
    assert all((path / name).read_text() == "something" for name in foreign)
    assert check(path) == []


def lose_middle(path):
    (path / "1.json").unlink()


def cut(path):
    (path / "2.json").write_bytes((path / "2.json").read_bytes()[:-3])


def garble(path):
    (path / "1.json").write_text('"k3"\t3\nnonsense\n"k5"\t5\n')


def break_value(path):
    (path / "1.json").write_text('"k3"\t3\n"k4"\t{"half": \n"k5"\t5\n')


def break_key(path):
    (path / "1.json").write_text('"k3"\t3\nnull\t4\n"k5"\t5\n')


def blank(path):
    (path / "1.json").write_text('"k3"\t3\n\n"k5"\t5\n')


def binary(path):
    (path / "1.json").write_bytes(b'"k3"\t3\n"k4"\t\xff\xfe\n"k5"\t5\n')


def nest_value(path):
    (path / "1.json").write_text(f'"k3"\t3\n"k4"\t{"[" * 340}{"]" * 340}\n"k5"\t5\n')


def nest_value_deeply(path):
    (path / "1.json").write_text('"k3"\t3\n"k4"\t' + '{"x":' * 100_000 + "0" + "}" * 100_000 + '\n"k5"\t5\n')


def nest_key(path):
    (path / "1.json").write_text(f'"k3"\t3\n{"[" * 400}{"]" * 400}\t4\n"k5"\t5\n')


def shorten_middle(path):
    (path / "1.json").write_text('"k3"\t3\n')


def shorten_last(path):
    (path / "2.json").write_text('"k6"\t6\n')


def empty_last(path):
    (path / "2.json").write_text("")


def lose_last(path):
    (path / "2.json").unlink()


def lose_all(path):
    for number in range(3):
        (path / f"{number}.json").unlink()


def newer_format(path):
    (path / ".meta").write_text((path / ".meta").read_text().replace('"format": 1', '"format": 2'))


def break_meta(path):
    (path / ".meta").write_text("{")


BROKEN = {
    lose_middle: ("1.json: the file is missing", [0, 1, 2, 6, 7]),
    cut: ("2.json line 2: the last line has no end", [0, 1, 2, 3, 4, 5, 6]),
    garble: ("1.json line 2: no tab", [0, 1, 2, 3, 5, 6, 7]),
    break_value: ("1.json line 2: the value of 'k4' is not JSON", [0, 1, 2, 3, 5, 6, 7]),
    break_key: ("1.json line 2: not a key", [0, 1, 2, 3, 5, 6, 7]),
    blank: ("1.json line 2: no tab", [0, 1, 2, 3, 5, 6, 7]),
    binary: ("1.json line 2: the value of 'k4' is not JSON: 'utf-8' codec", [0, 1, 2, 3, 5, 6, 7]),
    nest_value: ("1.json line 2: the value of 'k4' is not JSON: it is nested more", [0, 1, 2, 3, 5, 6, 7]),
    nest_value_deeply: ("1.json line 2: the value of 'k4' is not JSON: it is nested", [0, 1, 2, 3, 5, 6, 7]),
    nest_key: ("1.json line 2: not a key: it is nested more than 100 deep", [0, 1, 2, 3, 5, 6, 7]),
    shorten_middle: ("1.json: it has 1 lines of at least 3", [0, 1, 2, 3, 6, 7]),
    shorten_last: ("2.json: it has 1 lines of at least 2", [0, 1, 2, 3, 4, 5, 6]),
    empty_last: ("2.json: it has 0 lines of at least 2", [0, 1, 2, 3, 4, 5]),
    lose_last: ("2.json: the file is missing", [0, 1, 2, 3, 4, 5]),
    lose_all: ("0.json: the file is missing", []),
    break_meta: (".meta: it is not a valid description of a store", list(range(8))),
}


@pytest.mark.parametrize("harm", BROKEN)
def test_a_broken_store_is_refused_by_file_and_line_and_repaired_into_a_copy(path, tmp_path, harm):
    finding, kept = BROKEN[harm]
    harm(path)
    before = contents(path)
    for readonly in (False, True):
        with pytest.raises(IntegrityError) as caught:
            POD(path, readonly=readonly)
        assert f"{path}/{finding}" in str(caught.value)
        assert f"pillowd store repair {path} INTO" in str(caught.value)
    assert any(str(found).startswith(finding) for found in check(path))
    done = repair(path, tmp_path / "copy")
    assert done.findings == check(path)
    assert done.kept == len(kept)
    assert contents(path) == before
    assert check(tmp_path / "copy") == []
    with POD(tmp_path / "copy") as pod:
        values = {f"k{number}": number for number in kept}
        assert {key: pod[key] for key in values} == values
        pod["new"] = 1


def test_a_caller_who_is_too_deep_himself_is_no_broken_store(monkeypatch):
    def full(_):
        raise RecursionError

    monkeypatch.setattr("checkpoints.pod.codec.json.loads", full)
    with pytest.raises(RecursionError):
        parse_line(b'"k"\t{"x": [1]}')
    with pytest.raises(RecursionError):
        parse_line(b'["k"]\t1')


def test_a_check_beside_a_writer_is_no_false_alarm(path, tmp_path, monkeypatch):
    read = Directory.read
    with POD(path, file_size=3) as pod:

        def read_beside_a_writer(directory, name):
            data = read(directory, name)
            if name == META and len(pod) % 2 == 0:  # each first time: the bounds were read, and then lowered
                pod.popitem()
                pod.sync()
            return data

        monkeypatch.setattr(Directory, "read", read_beside_a_writer)
        assert check(path) == []
        del pod["k1"]
        assert repair(path, tmp_path / "copy").findings == []


def test_a_newer_format_is_refused_by_name_and_not_repaired(path, tmp_path):
    newer_format(path)
    with pytest.raises(IntegrityError, match=r"\.meta: it has format 2, this pillowd knows 1"):
        POD(path)
    assert [str(finding) for finding in check(path)] == [".meta: it has format 2, this pillowd knows 1"]
    with pytest.raises(NewerFormat, match="format 2"):
        repair(path, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_empty_file_of_tastypys_is_refused_too(golden):
    path = golden("pod-basic")
    (path / "0.json").write_text("")
    with pytest.raises(IntegrityError, match=r"0.json: it has 0 lines of at least 1"):
        POD(path)


def test_tastypys_rule_holds_where_a_store_says_nothing(golden):
    path = golden("pod-files-of-3")
    (path / "1.json").write_text('"k3"\t3\n"k4"\t4\n')
    with pytest.raises(IntegrityError, match=r"1.json: it has 2 lines of at least 3"):
        POD(path)


def test_of_two_lines_of_a_key_the_last_counts(path, caplog):
    (path / "1.json").write_text('"k0"\t"again"\n"k4"\t4\n"k5"\t5\n"k3"\t3\n')
    found = "1.json line 1: the key 'k0' is there before: this line counts"
    assert [str(finding) for finding in check(path)] == [found]
    repair(path, path.parent / "copy")
    assert check(path.parent / "copy") == []
    with POD(path, readonly=True) as pod:
        assert pod["k0"] == "again"
        assert len(pod) == len(list(pod)) == 8
    caplog.clear()
    with caplog.at_level(logging.WARNING), POD(path) as pod:
        assert found in caplog.text
        assert pod["k0"] == "again"
        assert len(pod) == len(list(pod)) == 8
        pod["k0"] = "later"
    with POD(path) as pod:
        assert pod["k0"] == "later"


def test_a_line_that_no_longer_counts_never_comes_back(path):
    (path / "1.json").write_text('"k0"\t"again"\n"k4"\t4\n"k5"\t5\n"k3"\t3\n')
    with POD(path) as pod:
        assert check(path) == []
        del pod["k0"]
    with POD(path) as pod:
        assert "k0" not in pod


def test_another_file_size_is_no_error_the_disk_says(path):
    with POD(path, file_size=1000) as pod:
        assert len(pod) == 8
        pod.update(k8=8, k9=9)
    assert sorted(name for name in contents(path) if "json" in name) == [f"{n}.json" for n in range(4)]
    with POD(path, file_size=1) as pod:
        assert list(pod.values()) == list(range(10))
    assert check(path) == []


def test_removed_keys_leave_the_others_in_their_files_and_order(path):
    with POD(path) as pod:
        for number in (1, 4, 7):
            del pod[f"k{number}"]
        pod["k8"] = 8
        pod["k9"] = 9
        expected = [f"k{number}" for number in (0, 2, 3, 5, 6, 8, 9)]
        assert list(pod) == expected
    with POD(path) as pod:
        assert list(pod) == expected
        pod["k4"] = "again"
        assert list(pod) == [*expected, "k4"]
    assert check(path) == []


def test_files_move_up_when_there_are_more_holes_than_keys(tmp_path):
    path = tmp_path / "x"
    with POD(path, {f"k{number}": number for number in range(40)}, file_size=2) as pod:
        pod.sync()
        for number in range(40):
            if number % 10:
                del pod[f"k{number}"]
        pod.sync()
        assert sorted(name for name in contents(path) if "json" in name) == ["0.json", "1.json"]
        assert tastypy_reader.read(path, file_size=2) == [
            (f"k{number}", number) for number in (0, 10, 20, 30)
        ]
        pod["new"] = 1
    with POD(path) as pod:
        assert list(pod) == ["k0", "k10", "k20", "k30", "new"]
    assert check(path) == []


def test_an_emptied_store_has_no_files_and_can_be_filled_again(path):
    with POD(path) as pod:
        pod.clear()
        pod.sync()
        assert not [name for name in contents(path) if "json" in name]
        pod["new"] = 1
    with POD(path) as pod:
        assert dict(pod) == {"new": 1}


def test_compressed_stores_round_trip(tmp_path):
    path = tmp_path / "x"
    with POD(path, {f"k{number}": "é" * 100 for number in range(8)}, gzipped=True, file_size=3) as pod:
        pod["k0"] = "changed"
    assert sorted(name for name in contents(path) if "json" in name) == [f"{n}.json.gz" for n in range(3)]
    assert gzip.decompress((path / "0.json.gz").read_bytes()).startswith(b'"k0"\t"changed"\n')
    with POD(path) as pod:
        assert pod["k0"] == "changed"
        assert len(pod) == 8
        pod["k8"] = 1
    assert check(path) == []


def test_a_broken_compressed_file_is_refused_and_its_whole_lines_are_kept(golden, tmp_path):
    path = golden("pod-gz")
    data = (path / "0.json.gz").read_bytes()
    (path / "0.json.gz").write_bytes(data[:-30])
    with pytest.raises(IntegrityError, match=r"0.json.gz: it cannot be decompressed"):
        POD(path)
    assert 0 < repair(path, tmp_path / "copy").kept < 4
    (path / "0.json.gz").write_bytes(b"no gzip at all")
    assert repair(path, tmp_path / "other").kept == 0


def test_mixed_plain_and_compressed_files_are_refused(golden):
    path = golden("pod-gz")
    shutil.copy(GOLDEN / "pod-basic" / "0.json", path / "0.json")
    with pytest.raises(IntegrityError, match="plain and gzipped segments are mixed"):
        POD(path)


def test_nobody_else_reads_the_files(tmp_path):
    before = os.umask(0)
    try:
        with POD(tmp_path / "a" / "x", {"a": 1}):
            pass
    finally:
        os.umask(before)
    path = tmp_path / "a" / "x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o640}


def test_a_repaired_tracker_is_a_tracker(tmp_path):
    with Tracker(tmp_path / "x", max_tries=3) as tracker:
        tracker.add_many(["a", "b"])
    (tmp_path / "x" / "0.json").write_text((tmp_path / "x" / "0.json").read_text()[:-3])
    repair(tmp_path / "x", tmp_path / "copy")
    with Tracker(tmp_path / "copy") as tracker:
        assert list(tracker) == ["a"]
        assert tracker.max_tries == 3


def test_a_repair_never_writes_into_something(path, tmp_path):
    with pytest.raises(FileExistsError):
        repair(path, path)
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "nothing")


@pytest.mark.parametrize("files", [[], ["file.txt"], ["checkpoints/.meta", "checkpoints/0.json"]])
def test_what_is_no_store_is_not_called_a_whole_one(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    for work in (lambda: check(tmp_path), lambda: repair(tmp_path, tmp_path / "copy")):
        with pytest.raises(StoreError, match=r"is not a store: .* Name the store's own directory"):
            work()
    assert not (tmp_path / "copy").exists()
    assert run_command(["store", "check", str(tmp_path)]) == 1


def test_a_store_that_nothing_was_written_to_is_whole(tmp_path):
    with POD(tmp_path / "x"):
        assert check(tmp_path / "x") == []
    assert check(tmp_path / "x") == []
    assert repair(tmp_path / "x", tmp_path / "copy").kept == 0


def test_a_store_of_another_kind_is_refused_by_name(tmp_path):
    with Tracker(tmp_path / "x") as tracker:
        tracker.add("a")
    with pytest.raises(StoreError, match="of the kind 'tracker'"):
        POD(tmp_path / "x")
