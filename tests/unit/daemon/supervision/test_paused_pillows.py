from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import IntegrityError, StoreWriteError, TailKey
from checkpoints.files.directory import Directory
from daemon.supervision.paused_pillows import Pauses
from tests.support.dict_replica import DictReplica

KEY = TailKey("cases", "couch/cases")


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_pause_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "paused.json"
    assert KEY not in Pauses(path)
    Pauses(path).add(KEY)
    assert KEY in Pauses(path)
    Pauses(path).discard(KEY)
    assert KEY not in Pauses(path)


def test_a_pause_outlives_another_pattern(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path / "paused.json")
    former, now = TailKey("users", "couch/user-*"), TailKey("users", "couch/user-*,admin-*")
    pauses.add(former)
    assert now in pauses
    for other in ("users@other/user-*", "others@couch/user-*", "users@couch/user-a"):
        assert TailKey(*other.split("@")) not in pauses
    pauses.discard(now)
    assert former not in pauses


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "paused.json"
    path.write_text('{"format": 2, "paused": []}')
    with pytest.raises(IntegrityError, match=r"format 2, this pillowd knows 1.*newer pillowd"):
        Pauses(path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 1}', "\x00\x00"]
    + [f'{{"format": 1, "paused": {no_list}}}' for no_list in ("5", "null", '"cases"', "[5]", "[[]]")],
)
def test_what_cannot_be_understood_is_refused_and_not_taken_for_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "paused.json"
    path.write_text(content)
    with pytest.raises(IntegrityError, match="delete it to run them all"):
        Pauses(path)


def test_a_write_that_fails_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "paused.json"
    pauses = Pauses(path)
    pauses.add(KEY)
    monkeypatch.setattr(Directory, "_fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pauses.discard(KEY)

    assert KEY in pauses
    assert KEY in Pauses(path)


def test_pauses_follow_a_replica(tmp_path):
    replica = DictReplica()
    pauses = Pauses(tmp_path / "one.json")
    pauses.add(TailKey("a", "couch/db"))
    pauses.attach(replica)
    pauses.add(TailKey("b", "couch/db"))
    pauses.discard(TailKey("a", "couch/db"))
    other = Pauses(tmp_path / "two.json")
    other.add(TailKey("c", "couch/db"))
    other.attach(replica)
    for each in (other, Pauses(tmp_path / "two.json")):
        assert [key for key in "abc" if TailKey(key, "couch/db") in each] == ["b"]


def test_a_pause_that_the_replica_does_not_take_is_none(tmp_path):
    replica = DictReplica({})
    pauses = Pauses(tmp_path / "one.json")
    pauses.attach(replica)
    replica.fails = True
    with pytest.raises(StoreWriteError):
        pauses.add(TailKey("a", "couch/db"))
    assert pauses.is_empty


def test_a_pause_of_another_daemon_counts_on_a_full_disk_and_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "paused.json"
    pauses = Pauses(path)
    with monkeypatch.context() as patch:
        patch.setattr(Directory, "_fsync", full)
        with pytest.raises(OSError, match="No space left"):
            pauses.follow(frozenset([str(KEY)]))
    assert KEY in pauses
    assert KEY not in Pauses(path)
    pauses.follow(frozenset([str(KEY)]))
    assert KEY in Pauses(path)
