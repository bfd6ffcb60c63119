"""`preview` and `check --connect` find what a target would refuse, and leave nothing written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase


@pytest.fixture
def make(tmp_path: Path, couch: Any, couch_db: CouchDatabase, postgres_dsn: str) -> Any:
    def build(**columns: str) -> Pillowd:
        transports = [
            {"connection": "warehouse", "table": "cases", "columns": columns},
            {"connection": "local", "table": "cases", "columns": columns},
            {"connection": "files", "file": "cases.jsonl"},
        ]
        pillow = {
            "source": {"connection": "couch", "database": couch_db.name},
            "transport": transports,
        }
        return Pillowd(
            tmp_path,
            pillows={"cases": pillow},
            connections={
                "couch": couchdb(couch.url, couch.auth),
                "warehouse": {"type": "postgres", "dsn": postgres_dsn},
                "local": {"type": "sqlite", "path": str(tmp_path / "t.sqlite")},
                "files": {"type": "jsonl", "folder": str(tmp_path)},
            },
        )

    return build


def tables(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select tablename from pg_tables where schemaname = 'public' order by 1")
        return [name for (name,) in found]


def test_i11_a_value_that_does_not_fit_is_shown_before_the_first_run(
    make: Any, tmp_path: Path, couch_db: CouchDatabase, postgres_dsn: str
) -> None:
    couch_db.bulk([{"_id": "fits", "big": 3}, {"_id": "not", "big": 3 * 10**12}])
    with make(big="big int", title="title text") as pillowd:
        shown = {each["id"]: each for each in pillowd.ask_here("preview", "cases", "--limit", "5")}
        assert shown["fits"]["errors"] == {}
        assert shown["fits"]["trials"] == {
            "warehouse": "it can be written",
            "local": "it can be written",
            "files": "nothing is tried: this target cannot undo a write",
        }
        assert list(shown["not"]["errors"]) == ["warehouse"], "SQLite's integers have 64 bits"
        assert "out of range" in shown["not"]["errors"]["warehouse"]
        told = pillowd.command_here("preview", "cases", "--id", "not").stdout
        assert "dead letter in warehouse: Column big" in told
        assert "files: nothing is tried" in told
        checked = pillowd.command_here("check", "--connect")
        assert checked.returncode == 0, checked.stdout
        said = " ".join(checked.stdout.split())
        assert "warning: 1 of the first 2 documents would become dead letters, such as 'not'" in said
        assert "2 of the first documents can be written" in said
        assert "this target cannot undo a write" in said
        assert (tables(postgres_dsn), (tmp_path / "t.sqlite").exists()) == ([], False)


def test_i11_a_column_that_takes_no_document_is_refused_by_check(
    make: Any, tmp_path: Path, couch_db: CouchDatabase, postgres_dsn: str
) -> None:
    couch_db.bulk([{"_id": f"b{n}", "title": "Emma"} for n in range(3)])
    with make(title="title int") as pillowd:
        checked = pillowd.command_here("check", "--connect")
        assert checked.returncode == 1, checked.stdout
        said = " ".join(checked.stdout.split())
        assert said.count("3 of the first 3 documents would become dead letters") == 2
        assert "2 of 4 sources and targets cannot work" in said
        assert tables(postgres_dsn) == []


def test_i11_tables_with_rows_are_tried_and_left_as_they_are(
    make: Any, tmp_path: Path, couch_db: CouchDatabase, postgres_dsn: str
) -> None:
    couch_db.bulk([{"_id": "a", "n": 1}])
    with make(n="n int") as pillowd:
        pillowd.start()
        pillowd.wait_for(lambda: pillowd.state("cases") == "live")
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("alter table cases add constraint small check (n < 10)")
        assert pillowd.stop() == 0
        couch_db.put("a", {"n": 11})

        def rows() -> list[Any]:
            with psycopg.connect(postgres_dsn) as connection:
                found = [connection.execute("select _id, _version, n from cases").fetchall()]
            with closing(sqlite3.connect(tmp_path / "t.sqlite")) as database:
                return [*found, database.execute("select _id, _version, n from cases").fetchall()]

        before = rows()
        (shown,) = pillowd.ask_here("preview", "cases", "--id", "a")
        assert "small" in shown["errors"]["warehouse"]
        assert shown["trials"]["local"] == "it can be written"
        with closing(sqlite3.connect(tmp_path / "t.sqlite", isolation_level=None)) as database:
            database.execute("begin immediate")
            (busy,) = pillowd.ask_here("preview", "cases", "--id", "a")
        assert "nothing could be tried" in busy["trials"]["local"]
        assert "local" not in busy["errors"], "nothing is wrong with the document"
        assert rows() == before
