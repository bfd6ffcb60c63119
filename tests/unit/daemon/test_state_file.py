"""State files: changes that meet each other are all kept, and what is not understood is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from checkpoints import IntegrityError, TailKey
from daemon.backfill.store import BackfillStore
from daemon.rebuilds.record import Rebuild, Rebuilds, RebuildState
from daemon.state_file import StateFile
from daemon.supervision.paused_pillows import Pauses
from daemon.verification.comparisons import Comparison, Comparisons

KEYS = [TailKey(f"pillow-{number}", "couch/cases") for number in range(20)]


def add_record(rebuilds: Rebuilds, key: TailKey) -> None:
    rebuilds.put(key, Rebuild(state=RebuildState.READY, live=1, other=2, last=2))


@pytest.mark.parametrize(
    ("open_file", "add", "is_there"),
    [
        (Rebuilds, add_record, lambda kept, key: kept.get(key) is not None),
        (Pauses, Pauses.add, lambda kept, key: key in kept),
        (Comparisons, lambda kept, key: kept.put(key, Comparison(at=1.0)), lambda kept, key: kept.get(key)),
    ],
)
def test_changes_at_the_same_time_are_all_kept_in_memory_and_on_disk(
    tmp_path: Path,
    open_file: Callable[[Path], Any],
    add: Callable[..., None],
    is_there: Callable[..., object],
) -> None:
    kept = open_file(tmp_path / "file")
    gevent.joinall([gevent.spawn(add, kept, key) for key in KEYS], raise_error=True)
    for found in (kept, open_file(tmp_path / "file")):
        assert [key for key in KEYS if not is_there(found, key)] == []


def test_fields_of_one_record_changed_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    rebuilds = Rebuilds(tmp_path / "file")
    add_record(rebuilds, KEYS[0])

    def add_step(number: int) -> None:
        def change(record: Rebuild | None) -> Rebuild:
            assert record is not None
            return Rebuild(state=record.state, live=1, other=2, last=2, steps=(*record.steps, str(number)))

        rebuilds.change(KEYS[0], change)

    gevent.joinall([gevent.spawn(add_step, number) for number in range(9)], raise_error=True)
    found = rebuilds.get(KEYS[0])
    assert found is not None
    assert sorted(found.steps) == sorted(map(str, range(9)))


def test_whoever_has_the_turn_is_waited_for_even_if_his_write_fails(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "missing" / "file")
    with pytest.raises(OSError, match="No such file"), file:
        file.write({})
    (tmp_path / "missing").mkdir()
    with file:
        waiting = gevent.spawn(file.__enter__)
        gevent.sleep(0)
        assert not waiting.ready()
        file.write({"a": 1})
    waiting.get(timeout=5)
    assert json.loads((tmp_path / "missing" / "file").read_bytes()) == {"a": 1}


def open_backfills(path: Path) -> None:
    path.rename(path.with_name("backfill.json"))
    BackfillStore(path.parent.parent)


@pytest.mark.parametrize("open_file", [Rebuilds, Pauses, Comparisons, open_backfills])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b'{"format": 2, "others": []}',
            r"has format 2, this pillowd knows 1\. Remedy: run the newer pillowd",
        ),
        (b'{"format": 1, "\xff": 1}', r"is not a .* Remedy: "),
        (b"\xff", r"is not a .* Remedy: "),
    ],
)
def test_what_is_not_understood_is_refused_with_the_remedy(
    tmp_path: Path, open_file: Callable[[Path], Any], content: bytes, words: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(content)
    with pytest.raises(IntegrityError, match=words):
        open_file(tmp_path / "a" / "file")
