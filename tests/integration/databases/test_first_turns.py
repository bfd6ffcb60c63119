"""New databases, which are read with one request each if they are small."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gevent
import pytest

from checkpoints import CheckpointStore, TailKey
from pillows.databases.members import Members
from pillows.databases.turns import turn_feed
from pillows.databases.turns.turn import Turn, TurnEnd, TurnResult
from pillows.databases.turns.turn_feed import FIRST_CHANGES
from pillows.dead_letters.store import DeadLetters
from pillows.transports.sqlite.transport import SqliteTransport
from tests.servers.couchdb.process import CouchDB
from tests.support.databases import Databases, make_config, read_sqlite, running

REMOVE = ", on_deleted: remove, poll: 1s"


@pytest.fixture
def databases() -> Any:
    with CouchDB(memory=True) as server:
        yield Databases(server, "user-")


def config_of(databases: Databases, folder: Path, source: str = "") -> str:
    return make_config(databases, f"type: sqlite, path: {folder}/t.sqlite", "table: docs", source=source)


def rows(folder: Path) -> Mapping[str, Any]:
    return {key: json.loads(doc) for key, doc in read_sqlite(folder / "t.sqlite").items()}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists the databases that got an ordinary turn."""
    names: list[str] = []
    run = Turn.run

    def note(turn: Turn) -> Any:
        names.append(turn._run._settings.key.database)
        return run(turn)

    monkeypatch.setattr(Turn, "run", note)
    return names


def test_a_small_database_costs_one_request(databases: Databases, tmp_path: Path, turns: list[str]) -> None:
    for number in range(20):
        databases.create(f"{number:02}", number % 3)  # some of them empty
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(20)
        (client,) = pillow.feeds._clients.values()
        # Beside them the welcome, `_db_updates`, and a page of the sweep.
        assert sum(client.outcomes.values()) <= 20 + 4
        for number in range(20):
            status = pillow.tail.status_of(f"{databases.prefix}{number:02}")
            assert (status.changes, status.pass_number) == (number % 3, None)
    assert turns == []
    assert rows(tmp_path) == databases.documents()


def test_what_does_not_fit_into_one_page_follows_in_ordinary_turns(
    databases: Databases, tmp_path: Path, turns: list[str]
) -> None:
    databases.create("many", FIRST_CHANGES + 150)
    databases.create("full", FIRST_CHANGES)
    databases["full"].delete("doc-000000")
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(2)
        status = pillow.tail.status_of(f"{databases.prefix}many")
        assert (status.changes, status.pass_number) == (FIRST_CHANGES + 150, None)
    assert turns == [f"{databases.prefix}many"]
    assert rows(tmp_path) == databases.documents()


def test_a_page_that_is_too_large_is_left_to_an_ordinary_turn(
    databases: Databases, tmp_path: Path, turns: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_feed, "FIRST_BYTES", 50_000)
    databases.create("a", 20, text="x" * 10_000)
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(1)
    assert turns == [f"{databases.prefix}a"]
    assert rows(tmp_path) == databases.documents()


def test_a_document_that_fails_in_the_first_turn_is_a_dead_letter(
    databases: Databases, tmp_path: Path, turns: list[str]
) -> None:
    databases.create("a", 3)
    databases["a"].put("wrong", n={"not": "a number"})
    databases.create("b", 1)
    config = make_config(
        databases, f"type: sqlite, path: {tmp_path}/t.sqlite", "table: docs, columns: { n: n integer }"
    )
    with running(config, tmp_path) as pillow:
        pillow.until_parked(2)
        status = pillow.tail.status_of(f"{databases.prefix}a")
        assert (status.dead_letters, status.changes) == (1, 4)
        databases["a"].put("wrong", n=5)
        pillow.until(lambda: pillow.tail.status().dead_letters == 0)
        pillow.until_parked(2)


def test_a_stop_ends_a_first_turn_whose_database_hangs(
    databases: Databases, tmp_path: Path, turns: list[str]
) -> None:
    databases.create("a", 3)
    databases.create("hangs", 3)
    databases.server.fail(
        does="silence", seconds=60, method="GET", path=f"/{databases.prefix}hangs/_changes", times=0
    )
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until(lambda: pillow.states() == {"parked": 1, "active": 1})
        gevent.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    databases.server.heal()
    with running(config_of(databases, tmp_path), tmp_path) as pillow:
        pillow.until_parked(2)
    assert rows(tmp_path) == databases.documents()


@pytest.mark.parametrize("transactional", [True, False])
def test_a_database_that_is_deleted_during_its_first_pass_loses_its_rows(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transactional: bool
) -> None:
    monkeypatch.setattr(SqliteTransport, "transactional", transactional)
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.3)
    databases.create("a", FIRST_CHANGES + 50)
    databases.create("b", 1)
    name, ends, end_turn = f"{databases.prefix}a", list[TurnEnd](), Members.end_turn

    def drop_first(members: Members, database: str, result: TurnResult) -> None:
        if database == name:
            if not ends:
                databases["a"].drop()
            ends.append(result.end)
        end_turn(members, database, result)

    monkeypatch.setattr(Members, "end_turn", drop_first)
    with running(config_of(databases, tmp_path, source=REMOVE), tmp_path) as pillow:
        pillow.until(lambda: ends != [])
        pillow.until(lambda: pillow.states() == {"parked": 1, "deleted": 1})
        pillow.until(lambda: rows(tmp_path) == databases.documents(), seconds=10)
    assert ends[0] is TurnEnd.MORE


@pytest.mark.parametrize("transactional", [True, False])
def test_a_first_turn_that_dies_after_its_write_is_repeated(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transactional: bool
) -> None:
    """The rows are there, and the state directory knows nothing of them but that there may be some."""
    monkeypatch.setattr(SqliteTransport, "transactional", transactional)
    databases.create("a", 3)
    config = config_of(databases, tmp_path)
    is_known = die_after_first_write(databases, config, tmp_path)
    databases["a"].put("doc-000000", n=7)
    databases["a"].delete("doc-000001")
    with running(config, tmp_path) as pillow:
        pillow.until_parked(1)
        pillow.until(lambda: rows(tmp_path) == databases.documents())
    assert is_known, "its checkpoint is stored before its rows are written"


@pytest.mark.parametrize("is_narrowed", [True, False])
@pytest.mark.parametrize("transactional", [True, False])
def test_a_database_that_is_gone_after_its_first_turn_died_loses_its_rows(
    databases: Databases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    transactional: bool,
    is_narrowed: bool,
) -> None:
    monkeypatch.setattr(SqliteTransport, "transactional", transactional)
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.3)
    databases.create("a", 3)
    config = config_of(databases, tmp_path, source=REMOVE)
    die_after_first_write(databases, config, tmp_path)
    assert len(rows(tmp_path)) == 3
    if is_narrowed:
        config = config.replace(f'"{databases.prefix}*"', f'"{databases.prefix}b*"')
    else:
        databases["a"].drop()
    with running(config, tmp_path) as pillow:
        pillow.until(lambda: pillow.states() == {"deleted": 1})
        pillow.until(lambda: rows(tmp_path) == {}, seconds=10)


def test_rows_whose_checkpoint_is_only_in_the_target_are_removed(
    databases: Databases, tmp_path: Path
) -> None:
    """The state directory was lost, and a database is excluded now."""
    databases.create("a", 3)
    databases.create("b", 1)
    lost, state = tmp_path / "lost", tmp_path / "state"
    for folder in (lost, state):
        folder.mkdir()
    with running(config_of(databases, tmp_path, source=REMOVE), lost) as pillow:
        pillow.until_parked(2)
    source = f'{REMOVE}, exclude: "{databases.prefix}a"'
    with running(config_of(databases, tmp_path, source=source), state) as pillow:
        pillow.until(lambda: pillow.states() == {"parked": 1, "deleted": 1})
        pillow.until(lambda: rows(tmp_path).keys() == {f"{databases.prefix}b:doc-000000"}, seconds=10)


@pytest.mark.parametrize("is_recreated", [True, False])
def test_rows_beside_a_dead_letter_that_a_crash_forgets_are_removed(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_recreated: bool
) -> None:
    """The dead letter keeps the target from saving the checkpoint with the rows."""
    monkeypatch.setattr("pillows.databases.turn_queue.MISSING_SECONDS", 0.3)
    databases.create("a", 3)
    databases["a"].put("wrong", n={"not": "a number"})
    config = make_config(
        databases,
        f"type: sqlite, path: {tmp_path}/t.sqlite",
        "table: docs, columns: { n: n integer }",
        source=f"{REMOVE}, on_recreated: reload",
    )

    def ids() -> set[str]:
        return {key.partition(":")[2] for key in read_sqlite(tmp_path / "t.sqlite", column="n")}

    dies: list[int] = []

    def die(*_: object) -> None:
        dies.append(1)
        gevent.getcurrent().throw(gevent.GreenletExit)

    with monkeypatch.context() as patched:
        patched.setattr(DeadLetters, "sync", die)
        with running(config, tmp_path, ends_by_kill=True) as pillow:
            pillow.until(lambda: dies != [])
            gevent.sleep(0.3)
    assert ids() == {"doc-000000", "doc-000001", "doc-000002"}
    databases["a"].drop()
    if is_recreated:
        gevent.sleep(1.1)  # CouchDB reports the creation time in seconds
        databases["a"].create().fill(1)
    with running(config, tmp_path) as pillow:
        pillow.until(lambda: pillow.states() == {"parked" if is_recreated else "deleted": 1})
        pillow.until(lambda: ids() == ({"doc-000000"} if is_recreated else set()), seconds=10)


def die_after_first_write(databases: Databases, config: str, folder: Path) -> bool:
    """Run a pillow whose first turn of `a` dies after its rows are written, before its checkpoint is saved.

    Return whether the checkpoint it began with was stored when the rows were written.
    """
    tail = TailKey("users", f"couch/{databases.prefix}a")
    save, write, known = CheckpointStore.save, SqliteTransport.write, list[bool]()

    def write_noted(transport: SqliteTransport, batch: Any) -> Any:
        if batch.documents:
            known.append(pillow.store.get(tail) is not None)
        return write(transport, batch)

    def fail(store: CheckpointStore, key: TailKey, checkpoint: Any, **options: Any) -> None:
        if key == tail and checkpoint.changes:
            gevent.getcurrent().throw(gevent.GreenletExit)
        save(store, key, checkpoint, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SqliteTransport, "write", write_noted)
        patched.setattr(CheckpointStore, "save", fail)
        with running(config, folder, ends_by_kill=True) as pillow:
            pillow.until(lambda: known != [])
            gevent.sleep(0.3)
    return all(known)
