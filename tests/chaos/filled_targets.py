"""Fill, count and read the keyed targets of a pillow `cases` without pillowd, many rows at a time."""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import requests

from tests.servers.couch_client import CouchDatabase

#: A document's id and write version.
StoredVersion = tuple[str, int]

Item = TypeVar("Item")

_ADD = "insert into cases (_id, _rev, _version, doc) values (?, ?, ?, '{}')"
_SENT = 5_000


class FilledTarget(ABC):
    """One target, whose table, index or database pillowd has made.

    Attributes:
        name: of its connection.
    """

    name: str

    @abstractmethod
    def fill(self, documents: Iterable[StoredVersion], rev: str) -> None:
        """Store documents with empty bodies, all of one revision."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of documents."""

    @abstractmethod
    def get_versions(self, ids: Sequence[str]) -> dict[str, int]:
        """Return id -> write version, for those of the documents that are stored."""


class FilledPostgres(FilledTarget):
    """A table, filled by COPY."""

    name = "postgres"

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def fill(self, documents: Iterable[StoredVersion], rev: str) -> None:
        columns = "copy cases (_id, _rev, _version, doc) from stdin"
        with psycopg.connect(self._dsn) as connection, connection.cursor().copy(columns) as copy:
            for id, version in documents:
                copy.write_row((id, rev, version, "{}"))

    def count(self) -> int:
        return int(self._ask("select count(*) from cases")[0][0])

    def get_versions(self, ids: Sequence[str]) -> dict[str, int]:
        return dict(self._ask("select _id, _version from cases where _id = any(%s)", [list(ids)]))

    def _ask(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with psycopg.connect(self._dsn) as connection:
            return connection.execute(query.encode(), values).fetchall()


class FilledSqlite(FilledTarget):
    """A table in a file."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self, documents: Iterable[StoredVersion], rev: str) -> None:
        with closing(sqlite3.connect(self._path)) as db, db:
            db.executemany(_ADD, ((id, rev, version) for id, version in documents))

    def count(self) -> int:
        with closing(sqlite3.connect(self._path)) as db:
            return int(db.execute("select count(*) from cases").fetchone()[0])

    def get_versions(self, ids: Sequence[str]) -> dict[str, int]:
        marks = ", ".join("?" * len(ids))
        with closing(sqlite3.connect(self._path)) as db:
            return dict(db.execute(f"select _id, _version from cases where _id in ({marks})", ids).fetchall())


class FilledElasticsearch(FilledTarget):
    """An index, filled by bulk requests with external versions."""

    name = "elasticsearch"

    def __init__(self, url: str, alias: str) -> None:
        self._place = f"{url}/{alias}"

    def fill(self, documents: Iterable[StoredVersion], rev: str) -> None:
        del rev  # only the version is stored
        for part in cut_parts(documents):
            lines = (
                json.dumps({"index": {"_id": id, "version": version, "version_type": "external"}}) + "\n{}\n"
                for id, version in part
            )
            answer = self._post("_bulk", "".join(lines), "application/x-ndjson")
            assert not answer["errors"], answer["items"][:3]

    def count(self) -> int:
        self._post("_refresh")
        return int(self._post("_count")["count"])

    def get_versions(self, ids: Sequence[str]) -> dict[str, int]:
        found = self._post("_mget", json.dumps({"ids": list(ids)}))["docs"]
        return {each["_id"]: each["_version"] for each in found if each["found"]}

    def _post(self, path: str, body: str = "", type: str = "application/json") -> Any:
        answer = requests.post(
            f"{self._place}/{path}", data=body.encode(), headers={"Content-Type": type}, timeout=120
        )
        answer.raise_for_status()
        return answer.json()


class FilledCouchdb(FilledTarget):
    """A database, filled with revisions as a replication would."""

    name = "couch"

    def __init__(self, database: CouchDatabase) -> None:
        self._database = database

    def fill(self, documents: Iterable[StoredVersion], rev: str) -> None:
        for part in cut_parts(documents):
            self._database.bulk(
                ({"_id": id, "_rev": rev, "pillowd_version": version} for id, version in part),
                new_edits=False,
            )

    def count(self) -> int:
        return int(self._database.info()["doc_count"])

    def get_versions(self, ids: Sequence[str]) -> dict[str, int]:
        asked = {"keys": list(ids), "include_docs": True}
        rows = self._database.request("POST", "/_all_docs", json=asked).json()["rows"]
        return {row["id"]: row["doc"]["pillowd_version"] for row in rows if row.get("doc")}


def cut_parts(items: Iterable[Item]) -> Iterator[Sequence[Item]]:
    """Yield the items in parts of the size of one request."""
    rest = iter(items)
    while part := list(islice(rest, _SENT)):
        yield part
