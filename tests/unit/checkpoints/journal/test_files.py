"""Damage to the checkpoints' file stops the tails that it may have changed, and no other."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from checkpoints import (
    Checkpoint,
    CheckpointStore,
    IntegrityError,
    NewerFormat,
    Seq,
    StoreError,
    TailKey,
    check,
    repair,
)
from checkpoints.files.directory import Directory
from checkpoints.journal.files import is_journal, keep_damaged, read_journal
from checkpoints.journal.records import format_snapshot

ONE, TWO, NEW = (TailKey(name, "couch/db") for name in ("one", "two", "new"))


def at(seq: object, **more: object) -> Checkpoint:
    return Checkpoint(seq=Seq.of(seq), **more)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints"
    with CheckpointStore(path) as store:
        store.save(ONE, at("1-x"))
        store.save(TWO, at("2-x"))
    return path


def lines_of(path: Path) -> list[bytes]:
    return (path / "journal").read_bytes().splitlines(keepends=True)


def damage(path: Path, text: bytes, *, harm=lambda line: b"?" * (len(line) - 1) + b"\n") -> None:
    """Damages the first line of a checkpoint that holds a text."""
    lines = lines_of(path)
    at = next(at for at, line in enumerate(lines) if text in line and b'"checkpoint"' in line)
    lines[at] = harm(lines[at])
    (path / "journal").write_bytes(b"".join(lines))


HARMS = {
    "garbled": lambda line: b"\xff" * (len(line) - 1) + b"\n",
    "one bit": lambda line: line.replace(b"1-x", b"1-y"),
    "zeros": lambda line: bytes(len(line) - 1) + b"\n",
    "no checksum": lambda line: line[9:],
    "empty": lambda line: b"\n",
    "checksum of nothing": lambda line: b"00000000 \n",
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize("again", [False, True])
def test_only_the_tail_whose_line_is_damaged_is_refused(path, harm, again, caplog):
    damage(path, b'"one"', harm=harm)
    before = (path / "journal").read_bytes()
    if again:
        CheckpointStore(path).close()

    with CheckpointStore(path) as store:
        assert store.get(TWO) == at("2-x")
        store.save(TWO, at("3-x"))
        with pytest.raises(IntegrityError, match=r"one@couch/db .*journal\.damaged-1 is damaged"):
            store.get(ONE)
        assert store.keys() == [TWO]
    with CheckpointStore(path, readonly=True) as store:
        assert store.get(TWO) == at("3-x")
        with pytest.raises(IntegrityError, match=r"journal\.damaged-1"):
            store.get(ONE)
    assert (path / "journal.damaged-1").read_bytes() == before
    assert not (path / "journal.damaged-2").exists()
    assert caplog.text.count("journal line") == 1


def test_a_journal_that_was_cut_off_lacks_what_stood_behind(path):
    """The journal was closed, so its length is known and the loss cannot be due to a crash."""
    journal = path / "journal"
    journal.write_bytes(journal.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match="journal: the file is cut off: 3 of 4 entries are left"):
        CheckpointStore(path, readonly=True)
    with CheckpointStore(path) as store:
        assert store.get(ONE) == at("1-x")
        assert store.get(TWO) == at("2-x")  # what was cut off is its history
        assert store.history(TWO) == []


def test_a_damaged_first_line_loses_nothing_that_is_there(path):
    lines = lines_of(path)
    (path / "journal").write_bytes(b"".join([b"{}\n", *lines[1:]]))
    with CheckpointStore(path) as store:
        assert {store.get(ONE), store.get(TWO)} == {at("1-x"), at("2-x")}
        with pytest.raises(IntegrityError, match="may have had a checkpoint"):
            store.get(NEW)


@pytest.mark.parametrize("left", ["nothing", "an empty file"])
def test_a_journal_that_is_missing_is_not_a_new_store(path, left):
    (path / "journal").unlink()
    if left == "an empty file":
        (path / "journal").touch()
    with pytest.raises(IntegrityError):
        CheckpointStore(path, readonly=True)
    with CheckpointStore(path) as store:
        for key in (ONE, TWO):
            with pytest.raises(IntegrityError, match=r"journal\.damaged-1"):
                store.get(key)
        edited = store.edit(ONE, Checkpoint.reset)
    with CheckpointStore(path) as store:
        assert store.get(ONE) == edited
        with pytest.raises(IntegrityError):
            store.get(TWO)


def test_before_a_damaged_commit_no_checkpoint_is_trusted(path):
    """The commit may have edited any checkpoint; so only those that were saved after it are trusted."""
    with CheckpointStore(path) as store:
        store.save(ONE, at("3-x"))
        store.save(TWO, at("4-x"))
        store.save(TWO, at("5-x"))
        as_killed = (path / "journal").read_bytes()
    (path / "journal").write_bytes(as_killed.replace(b"4-x", b"4-y"))
    with CheckpointStore(path) as store:
        assert store.get(TWO) == at("5-x")
        with pytest.raises(IntegrityError, match=r"one@couch/db .*journal\.damaged-1"):
            store.get(ONE)


@pytest.mark.parametrize("end", [b"", b"0", b"01234567 [[", bytes(100), b"01234567 [[]]\n", b"\0\0\n"])
def test_a_torn_commit_at_the_end_is_left_out_and_no_damage(path, end):
    """A crash can leave such a part of a commit that had not returned yet."""
    with CheckpointStore(path) as store:
        store.save(TWO, at("3-x"))
        as_killed = (path / "journal").read_bytes()
    (path / "journal").write_bytes(as_killed + end)
    assert check(path) == []
    with CheckpointStore(path, readonly=True) as store:
        assert store.get(TWO) == at("3-x")
    with CheckpointStore(path) as store:
        assert (store.get(ONE), store.get(TWO), store.get(NEW)) == (at("1-x"), at("3-x"), None)
        store.save(TWO, at("4-x"))
        as_killed = (path / "journal").read_bytes()
    (path / "journal").write_bytes(as_killed)
    with CheckpointStore(path) as store:
        assert store.get(TWO) == at("4-x")


def test_a_reset_makes_another_and_the_damaged_file_stays_as_it_is(path):
    damage(path, b'"one"')
    before = (path / "journal").read_bytes()
    with CheckpointStore(path) as store:
        edited = store.edit(ONE, Checkpoint.reset)
        assert store.get(ONE) == edited
    with CheckpointStore(path) as store:
        assert store.get(ONE) == edited
    assert (path / "journal.damaged-1").read_bytes() == before


def test_a_tail_that_is_new_may_have_been_there_until_the_damaged_file_is_removed(path):
    damage(path, b'"one"')
    with CheckpointStore(path) as store, pytest.raises(IntegrityError, match="may have had a checkpoint"):
        store.get(NEW)
    (path / "journal.damaged-1").unlink()
    with CheckpointStore(path) as store:
        assert store.get(NEW) is None


@pytest.mark.parametrize("method", ["link", "replace", "sync"])
@pytest.mark.parametrize("step", [0, 1])
def test_a_crash_while_the_damaged_file_is_kept_loses_nothing(path, monkeypatch, method, step):
    damage(path, b'"one"')
    real, done = getattr(Directory, method), []

    def crash(*arguments):
        if len(done) == step:
            raise SystemError("killed")
        done.append(arguments)
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Directory, method, crash)
        with suppress(SystemError):  # it may have been done before
            CheckpointStore(path)._journal._directory.close()

    with CheckpointStore(path) as store:
        assert store.get(TWO) == at("2-x")
        with pytest.raises(IntegrityError):
            store.get(ONE)
    assert [each.name for each in path.glob("journal.damaged-*")] == ["journal.damaged-1"]


def test_a_second_damage_is_kept_beside_the_first(path):
    damage(path, b'"one"')
    CheckpointStore(path).close()
    damage(path, b'"two"')
    with CheckpointStore(path) as store:
        for key in (ONE, TWO):
            with pytest.raises(IntegrityError):
                store.get(key)
    kept = {each.name for each in path.glob("journal.damaged-*")}
    assert kept == {"journal.damaged-1", "journal.damaged-2"}


@pytest.mark.parametrize("refused", ["link", "_put"])
def test_where_the_disk_refuses_the_damaged_store_is_refused_as_it_is(path, monkeypatch, refused):
    damage(path, b'"one"')
    before = (path / "journal").read_bytes()

    def refuse(*_, **__):
        raise OSError(28, "full")

    with monkeypatch.context() as patched:
        patched.setattr(Directory, refused, refuse)
        for _ in range(2):
            with pytest.raises(IntegrityError, match=r"journal line \d: the line is damaged"):
                CheckpointStore(path)
    assert (path / "journal").read_bytes() == before
    assert len(list(path.glob("journal.damaged-*"))) == (refused == "_put")
    CheckpointStore(path).close()  # it is not locked by those who were refused


def test_a_damaged_meta_is_mended_and_counts_as_damage(path):
    (path / ".meta").write_text("{")
    with pytest.raises(IntegrityError, match=r"meta does not say what kind of store this is"):
        CheckpointStore(path, readonly=True)
    with CheckpointStore(path) as store:
        assert store.get(ONE) == at("1-x")
        with pytest.raises(IntegrityError):
            store.get(NEW)
    assert check(path) == []


def test_check_names_the_line_and_repair_copies_the_rest(path, tmp_path):
    assert check(path) == []
    damage(path, b'"one"')
    [finding] = check(path)
    assert (finding.file, finding.problem, finding.harmless) == (
        "journal",
        "the line is damaged: its checksum does not match",
        False,
    )
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    done = repair(path, tmp_path / "copy")
    assert (done.kept, done.findings) == (3, [finding])
    assert {each.name: each.read_bytes() for each in path.iterdir()} == before
    with CheckpointStore(tmp_path / "copy") as store:
        assert (store.get(ONE), store.get(TWO)) == (None, at("2-x"))
    with pytest.raises(FileExistsError):
        repair(path, tmp_path / "copy")


CHECKPOINTS, A_POD, NEWER = (
    json.dumps({"format": number, "kind": kind}).encode()
    for kind, number in (("checkpoints", 2), ("pod", 1), ("checkpoints", 3))
)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, False),
        ({"journal": b""}, True),
        ({".meta": CHECKPOINTS}, True),
        ({".meta": A_POD}, False),
        ({".meta": b"?"}, False),
        ({"journal": b"", ".meta": A_POD}, True),
    ],
)
def test_a_directory_is_a_journals_by_its_name_or_by_what_meta_says(tmp_path, files, expected):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with Directory(tmp_path) as directory:
        assert is_journal(directory) is expected


@pytest.mark.parametrize(("meta", "error"), [(NEWER, NewerFormat), (A_POD, StoreError)])
def test_a_journal_of_a_newer_format_or_another_kind_is_refused(tmp_path, meta, error):
    (tmp_path / "journal").write_bytes(b"".join(format_snapshot([])))
    (tmp_path / ".meta").write_bytes(meta)
    with Directory(tmp_path) as directory, pytest.raises(error):
        read_journal(directory)


def test_a_damaged_journal_is_kept_once_under_a_name_that_is_told(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(Directory, "sync", lambda _: syncs.append(1))
    (tmp_path / "journal").write_bytes(b"one")
    with Directory(tmp_path) as directory:
        assert keep_damaged(directory) == keep_damaged(directory) == "journal.damaged-1"
        (tmp_path / "journal").unlink()
        assert keep_damaged(directory) == "journal.damaged-2"
    assert len(syncs) == 2  # the name is durable before the journal is replaced
