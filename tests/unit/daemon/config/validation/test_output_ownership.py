"""A place belongs to one pillow, however the configuration comes to name it."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.config.load import load
from daemon.config.problems import ConfigErrors

PILLOWS = """
version: 1
connections:
  couch: {{ type: couchdb, url: "http://localhost:5984" }}
  one: {one}
  two: {two}
pillows:
  first:
    source: {{ connection: couch, database: a }}
    transport: [{first}]
  second:
    source: {{ connection: couch, database: b }}
    transport: [{second}]
"""

LITE = "{ type: sqlite, path: t.sqlite }"
LINES = "{ type: jsonl, folder: lines }"
DSN = "{ type: postgres, dsn: 'postgresql://me:secret@db.example/reports' }"
SEARCH = "{ type: elasticsearch, hosts: ['http://es1:9200', 'http://es2:9200'] }"
COPIES = "{ type: couchdb, url: 'http://127.0.0.1:5984/' }"


def loaded(folder: Path, one: str, two: str, first: str, second: str) -> object:
    text = PILLOWS.format(one=one, two=two, first=f"{{ {first} }}", second=f"{{ {second} }}")
    (folder / "pillowd.yaml").write_text(text)
    return load(folder / "pillowd.yaml", {"HOME": str(folder)})


ONE_PLACE = {
    "tables that differ in case only": (
        LITE,
        LITE,
        "connection: one, table: t",
        "connection: one, table: T",
    ),
    "one SQLite file by two names": (
        LITE,
        "{ type: sqlite, path: sub/../t.sqlite }",
        "connection: one, table: t",
        "connection: two, table: T",
    ),
    "one SQLite file by a link": (
        LITE,
        "{ type: sqlite, path: link.sqlite }",
        "connection: one, table: t",
        "connection: two, table: t",
    ),
    "one folder by two connections": (
        LINES,
        "{ type: jsonl, folder: ./lines }",
        "connection: one, file: x.jsonl",
        "connection: two, file: x.jsonl",
    ),
    "a compressed file and one of its name": (
        LINES,
        LINES,
        "connection: one, file: x.jsonl, gzip: true",
        "connection: one, file: x.jsonl.gz",
    ),
    "one database in two spellings": (
        DSN,
        "{ type: postgres, dsn: 'host=DB.example port=5432 dbname=reports user=other' }",
        "connection: one, table: t",
        "connection: two, schema: public, table: t",
    ),
    "one of several hosts": (
        DSN,
        "{ type: postgres, dsn: 'host=standby,db.example dbname=reports' }",
        "connection: one, table: t",
        "connection: two, table: t",
    ),
    "one cluster by another node": (
        SEARCH,
        "{ type: elasticsearch, hosts: ['http://ES2:9200/'] }",
        "connection: one, index: cases",
        "connection: two, index: cases",
    ),
    "one CouchDB by two addresses": (
        COPIES,
        "{ type: couchdb, url: 'http://LOCALHOST:5984' }",
        "connection: one, database: c",
        "connection: two, database: c",
    ),
}


@pytest.mark.parametrize(("one", "two", "first", "second"), ONE_PLACE.values(), ids=ONE_PLACE)
def test_one_place_by_two_names_is_refused(
    tmp_path: Path, one: str, two: str, first: str, second: str
) -> None:
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "t.sqlite")
    with pytest.raises(ConfigErrors) as raised:
        loaded(tmp_path, one, two, first, second)
    (mistake,) = raised.value.problems
    assert mistake.place.line == 13
    assert mistake.key == "pillows.second.transport[0]"
    assert "pillow `second` writes `" in mistake.message
    assert f"which belongs to `first` ({tmp_path}/pillowd.yaml line 10)" in mistake.message
    assert "secret" not in mistake.message


TWO_PLACES = {
    "two tables": (LITE, LITE, "connection: one, table: t", "connection: one, table: u"),
    "two SQLite files": (
        LITE,
        "{ type: sqlite, path: u.sqlite }",
        "connection: one, table: t",
        "connection: two, table: t",
    ),
    "two files": (LINES, LINES, "connection: one, file: x.jsonl", "connection: one, file: X.jsonl"),
    "PostgreSQL's names with case": (DSN, DSN, "connection: one, table: t", "connection: one, table: T"),
    "two databases of a server": (
        DSN,
        "{ type: postgres, dsn: 'host=db.example dbname=others' }",
        "connection: one, table: t",
        "connection: two, table: t",
    ),
    "two ports of a host": (
        DSN,
        "{ type: postgres, dsn: 'host=db.example port=5433 dbname=reports' }",
        "connection: one, table: t",
        "connection: two, table: t",
    ),
    "two clusters": (
        SEARCH,
        "{ type: elasticsearch, hosts: ['http://other:9200'] }",
        "connection: one, index: cases",
        "connection: two, index: cases",
    ),
    "a webhook, which nobody owns": (
        "{ type: webhook, url: 'http://hook' }",
        "{ type: webhook, url: 'http://hook' }",
        "connection: one",
        "connection: two",
    ),
}


@pytest.mark.parametrize(("one", "two", "first", "second"), TWO_PLACES.values(), ids=TWO_PLACES)
def test_two_places_belong_to_two_pillows(
    tmp_path: Path, one: str, two: str, first: str, second: str
) -> None:
    assert loaded(tmp_path, one, two, first, second)


def test_a_pillow_does_not_write_what_it_reads_by_another_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="writes the database that it reads"):
        loaded(tmp_path, COPIES, LITE, "connection: one, database: a", "connection: two, table: t")


@pytest.mark.parametrize("url", ["http://localhost:59 84", "http://localhost:0", "http://[::1"])
def test_address_with_a_wrong_port_is_a_problem(tmp_path: Path, url: str) -> None:
    copies = f"{{ type: couchdb, url: '{url}' }}"
    with pytest.raises(ConfigErrors, match=r"connections\.one\.url: needs a URL"):
        loaded(tmp_path, copies, LITE, "connection: one, database: c", "connection: two, table: t")


def test_source_of_an_unknown_type_is_one_problem(tmp_path: Path) -> None:
    """Checks that depend on the type of the source are left out."""
    (tmp_path / "pillowd.yaml").write_text(
        PILLOWS.format(
            one=LITE, two=LITE, first="{ connection: one, table: t }", second="{ connection: two, table: u }"
        ).replace("type: couchdb", "type: coach")
    )
    with pytest.raises(ConfigErrors) as raised:
        load(tmp_path / "pillowd.yaml", {"HOME": str(tmp_path)})
    assert [each.key for each in raised.value.problems] == ["connections.couch.type"]
