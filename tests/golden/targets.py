"""Targets as a version of pillowd left them, with its state and its source: kept, put back, and gone on from.

A folder of `tests/golden/targets` has, for one version:

    source/           the databases of the tests' CouchDB: `cases`, and `copy`, which is a target
    state/            the state directory
    cases.sqlite      the target of the transport sqlite
    changes.json      pillow -> the number of changes that it had read
    lines/            the target of the transport jsonl
    postgres.json     tables, and their rows as COPY writes them
    elasticsearch.json  indices, and their documents with versions
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests
from psycopg import sql

from tests.acceptance.process import Pillowd, couchdb
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase
from tests.servers.couchdb.process import CouchDB

FOLDER = Path(__file__).parent / "targets"
#: Names begin so in Elasticsearch, which tests share.
PREFIX = "pillowd-golden-"
COLUMNS = {"n": "n integer", "at": "at timestamptz", "doc": "@ jsonb"}
#: Settings of an index that Elasticsearch makes itself.
_MADE = ("uuid", "creation_date", "provided_name", "version", "routing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the targets are.

    Attributes:
        folder: of files and state.
        couch: of the source, which has its databases in `folder / "source"`.
        dsn: of an empty PostgreSQL database.
        elasticsearch: URL.
    """

    folder: Path
    couch: CouchDB
    dsn: str
    elasticsearch: str

    @property
    def cases(self) -> CouchDatabase:
        """The source."""
        return CouchDatabase(self.couch.url, "cases", auth=self.couch.auth)

    @property
    def copy(self) -> CouchDatabase:
        """The CouchDB target."""
        return CouchDatabase(self.couch.url, "copy", auth=self.couch.auth)

    @contextmanager
    def running(self) -> Iterator[Pillowd]:
        """Run the daemon until all pillows are live, and stop it in the end."""
        source = {"connection": "couch", "database": "cases"}
        here = couchdb(self.couch.url, self.couch.auth)
        connections = {
            "couch": here,
            "postgres": {"type": "postgres", "dsn": self.dsn},
            "elasticsearch": {"type": "elasticsearch", "hosts": [self.elasticsearch]},
            "sqlite": {"type": "sqlite", "path": str(self.folder / "cases.sqlite")},
            "lines": {"type": "jsonl", "folder": str(self.folder / "lines")},
            "other": here,
        }
        index = {
            "connection": "elasticsearch",
            "index": f"{PREFIX}cases",
            "mapping": {"properties": {"n": {"type": "integer"}, "at": {"type": "date"}}},
        }
        pillows = {
            "cases": {
                "source": source,
                "transport": [
                    {"connection": "postgres", "table": "cases", "columns": COLUMNS},
                    {"connection": "sqlite", "table": "cases", "columns": {"n": "n integer"}},
                    index,
                ],
            },
            "alone": {
                "source": source,
                "transport": [{"connection": "postgres", "table": "alone", "columns": COLUMNS}],
            },
            "lines": {
                "source": source | {"deletes": "ignore"},
                "transport": [{"connection": "lines", "file": "cases.jsonl"}],
            },
            "copy": {"source": source, "transport": [{"connection": "other", "database": "copy"}]},
        }
        (self.folder / "notify").unlink(missing_ok=True)  # of an earlier run
        with Pillowd(self.folder, pillows=pillows, connections=connections) as daemon:
            daemon.start()
            daemon.wait_for(lambda: live(daemon))
            yield daemon
            assert daemon.stop() == 0, daemon.log.read_text()


def documents() -> Iterator[dict[str, Any]]:
    """Yield documents with what is easily lost: null, large numbers, other scripts, absent fields."""
    for n in range(30):
        nested = {"list": [str(n), None, "ü☃"]}
        yield {"_id": f"case-{n:02}", "n": n, "at": "2026-03-01T09:30:00Z", "nested": nested}
    yield {"_id": "largest", "n": 2**31 - 1, "large": 2**62, "small": 1e-300}
    yield {"_id": "ärger/ß", "text": "line\u2028 and \\ and quote", "n": None}


def write(servers: Servers) -> None:
    """Fill source and targets: documents that were created, updated, deleted, and are in conflict."""
    (servers.folder / "lines").mkdir()
    servers.cases.create()
    servers.copy.create()
    servers.cases.bulk(documents())
    with servers.running():
        pass
    for n in range(0, 30, 3):
        change(servers.cases, f"case-{n:02}", {"n": n, "updated": True})
    for n in range(1, 30, 7):
        servers.cases.delete(f"case-{n:02}")
    with servers.running() as daemon:
        names = daemon.settings["pillows"]
        daemon.wait_for(lambda: all(daemon.status(name)["pending"] == 0 for name in names))
        changes = {name: daemon.status(name)["changes"] for name in names}
    _write(servers.folder / "changes.json", changes)


def change(database: CouchDatabase, id: str, body: dict[str, Any]) -> None:
    """Write the next revision of a document."""
    current = database.get(id)
    database.put(id, body | {"_rev": current["_rev"]})


def keep(servers: Servers, folder: Path) -> None:
    """Write source, state and targets into a folder; CouchDB has ended by now."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    unwanted = shutil.ignore_patterns("*.lock", "*-shm", "*-wal")
    for name in ("source", "state", "lines"):
        shutil.copytree(servers.folder / name, folder / name, ignore=unwanted)
    for name in ("cases.sqlite", "changes.json"):
        shutil.copy(servers.folder / name, folder)
    _write(folder / "postgres.json", dump_postgres(servers.dsn))
    _write(folder / "elasticsearch.json", dump_elasticsearch(servers.elasticsearch))


def put_back(kept: Path, folder: Path, dsn: str, elasticsearch: str) -> None:
    """Put all but the source's server into place."""
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    restore_postgres(dsn, json.loads((kept / "postgres.json").read_bytes()))
    restore_elasticsearch(elasticsearch, json.loads((kept / "elasticsearch.json").read_bytes()))


def dump_postgres(dsn: str) -> dict[str, Any]:
    """Return table -> its columns, constraints, indexes and rows."""
    with psycopg.connect(dsn) as connection:

        def texts(query: str, *values: Any) -> list[str]:
            return [text for (text,) in connection.execute(query, values).fetchall()]

        tables = texts(
            "select relname from pg_class"
            " where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1"
        )
        found = {}
        for table in tables:
            with connection.cursor().copy(sql.SQL("copy {} to stdout").format(sql.Identifier(table))) as copy:
                rows = b"".join(bytes(block) for block in copy).decode()
            found[table] = {
                "comment": texts("select obj_description(%s::regclass)", f'"{table}"')[0],
                "columns": texts(
                    "select format('%%I %%s', attname, format_type(atttypid, atttypmod)"
                    " || case when attnotnull then ' not null' else '' end"
                    " || coalesce(' default ' || pg_get_expr(adbin, adrelid), ''))"
                    " from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum"
                    " where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum",
                    f'"{table}"',
                ),
                "constraints": texts(
                    "select pg_get_constraintdef(oid) from pg_constraint"
                    " where conrelid = %s::regclass order by 1",
                    f'"{table}"',
                ),
                "rows": sorted(rows.split("\n")[:-1]),
            }
    return found


def restore_postgres(dsn: str, tables: dict[str, Any]) -> None:
    """Make the tables again."""
    with psycopg.connect(dsn) as connection:
        for name, table in tables.items():
            parts = ", ".join([*table["columns"], *table["constraints"]])
            connection.execute(f'create table "{name}" ({parts})'.encode())
            if table["comment"]:
                comment = sql.Literal(table["comment"])
                connection.execute(sql.SQL("comment on table {} is {}").format(sql.Identifier(name), comment))
            with connection.cursor().copy(sql.SQL("copy {} from stdin").format(sql.Identifier(name))) as copy:
                copy.write("".join(f"{row}\n" for row in table["rows"]))


def dump_elasticsearch(url: str) -> dict[str, Any]:
    """Return index -> its settings, mapping, aliases and documents."""
    requests.post(f"{url}/{PREFIX}*/_refresh", timeout=30).raise_for_status()
    indices = requests.get(f"{url}/{PREFIX}*", timeout=30).json()
    for name, index in indices.items():
        index["settings"] = {
            key: value for key, value in index["settings"]["index"].items() if key not in _MADE
        }
        query = {"size": 1000, "version": True, "sort": ["_doc"]}
        hits = requests.post(f"{url}/{name}/_search", json=query, timeout=30).json()["hits"]["hits"]
        wanted = [{key: hit[key] for key in ("_id", "_version", "_source")} for hit in hits]
        index["documents"] = sorted(wanted, key=lambda hit: str(hit["_id"]))
    return dict(indices)


def restore_elasticsearch(url: str, indices: dict[str, Any]) -> None:
    """Make the indices again; what an earlier test left of them goes."""
    remove_indices(url)
    for name, index in indices.items():
        made = {key: index[key] for key in ("settings", "mappings", "aliases")}
        requests.put(f"{url}/{name}", json=made, timeout=60).raise_for_status()
        lines = []
        for each in index["documents"]:
            action = {"_id": each["_id"], "version": each["_version"], "version_type": "external"}
            lines += [json.dumps({"index": action}), json.dumps(each["_source"])]
        answer = requests.post(
            f"{url}/{name}/_bulk?refresh=true",
            data=("\n".join(lines) + "\n").encode(),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=60,
        ).json()
        assert not answer["errors"], answer


def remove_indices(url: str) -> None:
    """Remove all indices of these names."""
    for name in requests.get(f"{url}/{PREFIX}*", timeout=30).json():
        requests.delete(f"{url}/{name}", timeout=30).raise_for_status()


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
