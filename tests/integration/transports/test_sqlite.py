"""The SQLite transport against real files, read back with connections of the test's own."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

from checkpoints import TailKey
from checkpoints.files.blocking import run_blocking
from pillows.errors import AccessError, ConfigError, FatalError, StateLostError
from pillows.models import write_version
from pillows.transports.common.columns import TableOutput
from pillows.transports.sqlite.options import SqliteConnection
from pillows.transports.sqlite.transport import SqliteTransport
from tests.conformance import TransportConformance
from tests.conformance.history import History
from tests.conformance.steps import assert_applied, write_until_answered
from tests.conformance.target import KEY, at, batch, document, gone
from tests.integration.transports.sqlite_file import OUTPUTS, SqliteTarget
from tests.support.sizes import size
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]


class TestSqliteConformance(TransportConformance):
    @pytest.fixture
    def target(self, tmp_path: Path) -> SqliteTarget:
        return SqliteTarget(tmp_path / "target.db")

    @pytest.mark.parametrize("seed", range(100, 100 + size(ci=20, proof=300)))
    def test_many_histories_converge(self, target: SqliteTarget, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)


def transport(path: Path, key: Any = KEY, busy_timeout: Any = "100ms", **outputs: Any) -> SqliteTransport:
    connection = SqliteConnection(path=str(path), busy_timeout=busy_timeout, tombstone_ttl="1h")
    return SqliteTransport("local", key, connection, outputs)


@contextmanager
def running(path: Path, epoch: int = 1, **outputs: TableOutput) -> Iterator[SqliteTransport]:
    one = transport(path, **outputs)
    try:
        one.open()
        one.acquire(at("0", epoch=epoch))
        yield one
    finally:
        one.close()


def query(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "target.db"


CASES = TableOutput(
    table="cases",
    columns={
        "name": "name text",
        "city": "address.city text",
        "xmlns": "form.@xmlns text",
        "first": "lines[0].sku text",
        "price": "price real",
        "open": "open boolean",
        "lines": "lines json",
    },
)


def test_mapped_columns_hold_the_values_at_their_paths(path: Path) -> None:
    body = {
        "_id": "a",
        "name": "Ada",
        "address": {"city": "London"},
        "form": {"@xmlns": "urn:x"},
        "lines": [{"sku": "s1"}, {"sku": "s2"}],
        "price": 12,
        "open": True,
    }
    with running(path, cases=CASES) as sqlite:
        raw = document("a", 3, msgspec.json.encode(body), output="cases", rev="3-abc")
        assert_applied(sqlite.write(batch(raw, document("b", 1, {"address": "none"}, output="cases"))))
    lines = '[{"sku":"s1"},{"sku":"s2"}]'
    assert query(path, "SELECT * FROM cases ORDER BY _id") == [
        ("a", "3-abc", write_version(1, 3), "Ada", "London", "urn:x", "s1", 12.0, 1, lines),
        ("b", document("b", 1).rev, write_version(1, 1), None, None, None, None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"n": "many"}, "cannot store TEXT value in INTEGER column"),
        ({"n": 1.5}, "cannot store REAL value in INTEGER column"),
        ({"n": 2**63}, "Column 'n' of table 'typed' cannot take a number of more than 64 bits"),
        ({"n": [1]}, "Column 'n' cannot take a value of the kind list (a jsonb column can)"),
        ({"n": {"private": 1}}, "Column 'n' cannot take a value of the kind object"),
        ({"n": object()}, "n is of type object: JSON cannot hold it"),
        ({"n": "private\ud800"}, "Column 'n' of table 'typed' cannot take a text that is not valid Unicode"),
        (b"[1]", "not a JSON object"),
        (b'{"n": ', "not a JSON object"),
    ],
)
def test_a_value_that_does_not_fit_is_dead_and_says_why(path: Path, value: Any, why: str) -> None:
    with running(path, typed=OUTPUTS["typed"]) as sqlite:
        result = sqlite.write(
            batch(document("bad", 1, value, output="typed"), document("fine", 1, {"n": "7"}, output="typed"))
        )
    assert set(result.dead) == {"bad"}
    assert why in result.dead["bad"]
    assert "private" not in result.dead["bad"]
    assert query(path, "SELECT _id, n FROM typed") == [("fine", 7)]


def test_a_document_that_fails_in_its_second_output_is_in_none(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"], typed=OUTPUTS["typed"]) as sqlite:
        result = sqlite.write(batch(document("a", 1, {"n": "x"}, typed=[{"n": "x"}])))
        assert set(result.dead) == {"a"}
        assert query(path, "SELECT * FROM docs") == []


def test_two_rows_for_an_output_of_one_row_a_document_are_dead(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"]) as sqlite:
        result = sqlite.write(batch(document("a", 1, {"n": 1}, {"n": 2})))
    assert "takes one row per document, not 2" in result.dead["a"]


def test_child_rows_are_numbered_and_mapped(path: Path) -> None:
    lines = TableOutput(table="lines", columns={"sku": "sku text", "n": "n integer"}, many=True)
    with running(path, lines=lines) as sqlite:
        rows = [{"sku": "s1", "n": 1}, {"sku": "s2", "n": 2}]
        sqlite.write(batch(document("a", 1, *rows, output="lines")))
    assert query(path, "SELECT _id, _row, sku, n FROM lines") == [("a", 0, "s1", 1), ("a", 1, "s2", 2)]


def test_a_new_column_is_added_and_filled_from_then_on(path: Path) -> None:
    with running(path, cases=TableOutput(table="cases", columns={"name": "name text"})) as sqlite:
        sqlite.write(batch(document("a", 1, {"name": "Ada"}, output="cases")))
        before = sqlite.outputs_digest()
    with running(path, cases=CASES) as sqlite:
        assert sqlite.outputs_digest() == before, "no reason to refuse the checkpoint"
        sqlite.write(batch(document("b", 1, {"name": "Bo", "price": 2}, output="cases")))
    assert query(path, "SELECT name, price FROM cases ORDER BY _id") == [("Ada", None), ("Bo", 2.0)]


def test_a_changed_column_type_is_refused_with_the_statement_to_run(path: Path) -> None:
    with running(path, cases=TableOutput(table="cases", columns={"name": "name text"})):
        pass
    changed = TableOutput(table="cases", columns={"name": "name integer"})
    with (
        pytest.raises(ConfigError, match='ALTER TABLE "cases" DROP COLUMN "name";'),
        running(path, cases=changed),
    ):
        pass
    query(path, 'ALTER TABLE "cases" DROP COLUMN "name"')
    with running(path, cases=changed):
        pass


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE cases (id TEXT PRIMARY KEY)",
        "CREATE TABLE Cases (_id TEXT, _rev TEXT, _version INTEGER)",
        "CREATE VIEW cases AS SELECT 1 AS _id, 2 AS _rev, 3 AS _version",
        "CREATE TABLE cases (_id TEXT, _rev TEXT, _version INTEGER, _row INTEGER, PRIMARY KEY (_id, _row))",
    ],
)
def test_a_foreign_table_is_refused(path: Path, statement: str) -> None:
    query(path, statement)
    with (
        pytest.raises(ConfigError, match=r"choose another name, or run: DROP (TABLE|VIEW)"),
        running(path, cases=CASES),
    ):
        pass


def test_a_type_that_sqlite_has_not_is_a_config_error(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no type 'numeric\(10, 2\)'"):
        transport(path, cases=TableOutput(table="cases", columns={"price": "price numeric(10, 2)"}))


@pytest.mark.parametrize("names", [("cases", "Cases"), ("pillowd_document",), ("sqlite_x",)])
def test_a_table_that_is_taken_is_a_config_error(path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"both name table|are reserved"):
        transport(path, **{f"output{n}": TableOutput(table=name) for n, name in enumerate(names)})


def test_another_kind_of_table_changes_the_digest(path: Path) -> None:
    kinds = [
        TableOutput(table="t"),
        TableOutput(table="u"),
        TableOutput(table="t", many=True),
        TableOutput(table="t", columns={"n": "n integer"}),
    ]
    assert len({transport(path, docs=kind).outputs_digest() for kind in kinds}) == len(kinds)


def test_a_file_that_is_no_database_is_fatal(path: Path) -> None:
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(FatalError, match="is not an SQLite database") as caught:
        transport(path, docs=OUTPUTS["docs"]).open()
    assert "checkpoint reset" in str(caught.value)


def test_a_missing_folder_is_an_access_error(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="create its folder"):
        transport(tmp_path / "missing" / "target.db", docs=OUTPUTS["docs"]).open()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_vanishes_under_the_writer_is_noticed(path: Path, how: str) -> None:
    """Otherwise every later write would go into a file that nobody can open again."""
    with running(path, docs=OUTPUTS["docs"]) as sqlite:
        sqlite.write(batch(document("a", 1, {"n": 1})))
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"")
        with pytest.raises(StateLostError, match="moved, deleted or replaced"):
            sqlite.write(batch(document("b", 1, {"n": 1})))


def test_an_unreadable_checkpoint_is_told_with_its_epoch_so_that_a_reset_mends_it(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"]):
        pass
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE pillowd_checkpoint SET checkpoint = '{\"format\": 9}'")
        epoch = db.execute("SELECT epoch FROM pillowd_checkpoint").fetchone()[0]
        db.execute("DROP TABLE docs")
    with closing(transport(path, docs=OUTPUTS["docs"])) as sqlite:
        state = sqlite.open()
        assert (state.checkpoint, state.epoch, state.empty) == (None, epoch, False)
        assert "KeyError" in state.unreadable
        assert not query(path, "SELECT 1 FROM sqlite_master WHERE name = 'docs'"), "it hides what is lost"
        sqlite.acquire(at("0", epoch=epoch + 1))
        assert sqlite.open().checkpoint == at("0", epoch=epoch + 1)


def test_a_dropped_table_is_fatal_and_not_retried(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"]) as sqlite:
        query(path, "DROP TABLE docs")
        with pytest.raises(FatalError, match="no such table"):
            sqlite.write(batch(document("a", 1, {"n": 1})))


def test_the_journal_is_wal_and_commits_are_synced(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"]) as sqlite:
        assert sqlite._worker._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert sqlite._worker._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_tombstones_are_forgotten_after_their_time(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"], lines=OUTPUTS["lines"]) as sqlite:
        sqlite.write(batch(gone("old", 1), gone("new", 1), document("kept", 1, {"n": 1}, output="lines")))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE pillowd_document SET deleted_at = deleted_at - 7200 WHERE _id = 'old'")
    with running(path, docs=OUTPUTS["docs"], lines=OUTPUTS["lines"]):
        pass
    known = query(path, "SELECT DISTINCT _id FROM pillowd_document ORDER BY _id")
    assert known == [("kept",), ("new",)]


def test_two_pillows_write_one_file_at_once(path: Path) -> None:
    first = transport(path, docs=OUTPUTS["docs"])
    second = transport(path, TailKey("forms", "couch/forms"), other=OUTPUTS["other"])
    for one in (first, second):
        one.open()
        one.acquire(at("0"))

    def load(one: SqliteTransport, output: str) -> None:
        for n in range(20):
            documents = [document(f"d{n}-{m}", 1, {"n": n}, output=output) for m in range(50)]
            assert_applied(write_until_answered(one, batch(*documents)))

    gevent.joinall([gevent.spawn(load, first, "docs"), gevent.spawn(load, second, "other")], raise_error=True)
    first.close()
    second.close()
    assert query(path, "SELECT count(*) FROM docs") == [(1000,)]
    assert query(path, 'SELECT count(*) FROM "other docs"') == [(1000,)]


#: Makes the removal of each row take longer than a test.
SLOW_DELETE = """
    CREATE TRIGGER slow BEFORE DELETE ON docs BEGIN
        WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 1000000000)
        SELECT max(n) FROM count;
    END
"""


def test_a_long_sweep_is_interrupted_by_a_kill(path: Path) -> None:
    with running(path, docs=OUTPUTS["docs"]) as sqlite:
        sqlite.write(batch(*(document(f"d{n}", 1, {"n": n}) for n in range(50))))
        execute(path, SLOW_DELETE)
        sweep = gevent.spawn(sqlite.finish_pass, 2)
        wait_until(lambda: is_locked(path), worker=sweep)
        sweep.kill(timeout=60)
        execute(path, "DROP TRIGGER slow")
        sqlite.write(batch(document("d0", 2, {"n": 0})))
        assert query(path, "SELECT count(*) FROM docs")[0][0] == 50


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, timeout=60)) as db, db:
        db.execute(sql)


def is_locked(path: Path) -> bool:
    with closing(sqlite3.connect(path, timeout=0)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
    return False


def test_a_kill_within_the_commit_shows_rows_and_checkpoint_or_neither(path: Path) -> None:
    """A process that is killed with -9 at some moment of its writes; the file is opened anew."""
    writer = Path(__file__).with_name("endless_writer.py")
    for wait_seconds in (0.02, 0.06, 0.11, 0.17, 0.23):
        process = subprocess.Popen(
            [sys.executable, writer, "sqlite", path],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        process.stdout.readline()
        time.sleep(wait_seconds)
        process.kill()
        process.communicate()
        one = transport(path, docs=OUTPUTS["docs"])
        checkpoint = one.open().checkpoint
        one.close()
        written = query(path, "SELECT count(*), max(CAST(doc ->> 'batch' AS INTEGER)) FROM docs")[0]
        assert written == (100 * checkpoint.changes, checkpoint.changes or None)


def test_c2_locked_files_hold_up_neither_another_file_nor_a_checkpoint(path: Path, tmp_path: Path) -> None:
    locked, healthy = tmp_path / "locked.db", tmp_path / "healthy.db"
    waiting = [
        transport(locked, TailKey(f"p{n}", "couch/cases"), "5s", docs=OUTPUTS["docs"]) for n in range(25)
    ]
    waiting[0].open()
    with (
        closing(sqlite3.connect(locked, isolation_level=None)) as db,
        running(healthy, docs=OUTPUTS["docs"]) as one,
    ):
        db.execute("BEGIN IMMEDIATE")
        writers = [gevent.spawn(each.open) for each in waiting[1:]]
        gevent.sleep(0.1)
        assert not any(writer.ready() for writer in writers)
        with gevent.Timeout(3):
            for n in range(20):
                assert_applied(one.write(batch(document(f"d{n}", 1, {"n": n}))))
                run_blocking(os.stat, tmp_path)
                gevent.get_hub().threadpool.apply(os.stat, (tmp_path,))
        gevent.killall(writers)
    for each in waiting:
        each.close()
