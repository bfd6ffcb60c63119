"""The content of source and targets, read by plain clients: id -> (revision, version, body)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import requests

from tests.servers.couch_client import CouchDatabase
from tests.support.kafka_reader import headers, read_topic

#: Below these bits of a guard stands the version, above them the epoch.
VERSION = (1 << 40) - 1


class Row(NamedTuple):
    """A document as one store has it; the version is the sum of its leaves' generations."""

    rev: str
    version: int
    body: Mapping[str, Any]


Rows = dict[str, Row]


def row(guard: int, document: Mapping[str, Any], rev: str | None = None) -> Row:
    body = {name: value for name, value in document.items() if name not in ("_id", "_rev")}
    return Row(rev or document["_rev"], guard & VERSION, body)


def couchdb(database: CouchDatabase) -> Rows:
    """Returns the rows that every target must hold."""
    changes = database.changes(style="all_docs", include_docs=True)["results"]
    return {
        each["id"]: row(sum(int(leaf["rev"].split("-")[0]) for leaf in each["changes"]), each["doc"])
        for each in changes
        if not each.get("deleted") and not each["id"].startswith("_design/")
    }


def postgres(dsn: str, table: str) -> Rows:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(f"select _id, _rev, _version, doc from {table}")
        return {id: row(version, doc, rev) for id, rev, version, doc in found}


def kafka(server: str, topic: str) -> Rows:
    """Returns the newest message of every document."""
    newest: Rows = {}
    for message in read_topic(server, topic):
        id, value, told = (message.key() or b"").decode(), message.value(), headers(message)
        newest.pop(id, None)
        if value is not None:
            newest[id] = row(int(told["version"]), json.loads(value), told["rev"])
    return newest


def postgres_count(dsn: str, table: str) -> int:
    """How many rows there are; 0 while there is no table."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        if connection.execute("select to_regclass(%s)", [table]).fetchone() == (None,):
            return 0
        ((count,),) = connection.execute(f"select count(*) from {table}")
        return int(count)


def sqlite(path: Path, table: str) -> Rows:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute(f"select _id, _rev, _version, doc from {table}")
        return {id: row(version, json.loads(doc), rev) for id, rev, version, doc in found}


def elasticsearch(url: str, alias: str) -> Rows:
    """Everything that a search through the alias finds."""
    with requests.Session() as session:

        def ask(method: str, path: str, body: Any = None) -> Any:
            answer = session.request(method, f"{url}/{path}", json=body, timeout=60)
            answer.raise_for_status()
            return answer.json()

        ask("POST", f"{alias}/_refresh")
        rows: Rows = {}
        after: list[Any] | None = None
        pit = ask("POST", f"{alias}/_pit?keep_alive=1m")["id"]
        while True:
            query = {"pit": {"id": pit}, "size": 10_000, "version": True, "sort": ["_shard_doc"]}
            hits = ask("POST", "_search", query | ({"search_after": after} if after else {}))["hits"]["hits"]
            if not hits:
                ask("DELETE", "_pit", {"id": pit})
                return rows
            rows |= {hit["_id"]: row(hit["_version"], hit["_source"]) for hit in hits}
            after = hits[-1]["sort"]


def differences(expected: Rows, found: Rows) -> list[str]:
    """Returns the first few errors of `found`, in words."""
    wrong = [f"{id}: missing" for id in expected.keys() - found.keys()]
    wrong += [f"{id}: a phantom, {found[id]}" for id in found.keys() - expected.keys()]
    wrong += [
        f"{id}: {found[id]} instead of {expected[id]}"
        for id in expected.keys() & found.keys()
        if expected[id] != found[id]
    ]
    return [f"{len(wrong)} differences", *sorted(wrong)[:5]] if wrong else []
