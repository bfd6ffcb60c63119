"""A small CouchDB client for tests: what a person would do with curl, on plain `requests`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Self
from urllib.parse import quote

import requests

Json = dict[str, Any]
BULK_DOCS = 1000  # one request's worth; larger ones only take memory
TIMEOUT_SECONDS = 60
JSON = {"Accept": "application/json"}  # open_revs comes as multipart otherwise


class CouchDatabase:
    """One database of a CouchDB server; every method raises `requests.HTTPError` on a refusal.

    Args:
        server_url: the server, without credentials.
        name: the database.
        auth: user and password.
    """

    def __init__(self, server_url: str, name: str, *, auth: tuple[str, str] | None = None) -> None:
        self.server_url = server_url
        self.name = name
        self.auth = auth
        self.url = f"{server_url}/{quote(name, safe='')}"
        self.session = requests.Session()
        self.session.auth = auth

    def request(self, method: str, path: str = "", **options: Any) -> requests.Response:
        """Sends a request to a path below the database and returns the answer."""
        options.setdefault("timeout", TIMEOUT_SECONDS)
        response = self.session.request(method, f"{self.url}{path}", **options)
        response.raise_for_status()
        return response

    def create(self, *, shards: int | None = None) -> Self:
        """Create the database; rows of one shard come in the order of the writes."""
        self.request("PUT", params={"q": shards} if shards else None)
        return self

    def drop(self) -> None:
        """Deletes the database."""
        self.request("DELETE")

    def recreate(self) -> None:
        """Deletes the database and creates another one under its name, whose start time is another one."""
        started = int(self.info()["instance_start_time"])
        self.drop()
        while int(time.time()) <= started:  # it is told in seconds
            time.sleep(0.05)
        self.create()

    def exists(self) -> bool:
        """Returns whether the database is there."""
        return self.session.get(self.url, timeout=TIMEOUT_SECONDS).ok

    def info(self) -> Json:
        """Returns `GET /{db}`."""
        return self._json("GET")

    def get(self, doc_id: str, **params: Any) -> Json:
        """Returns one document."""
        return self._json("GET", doc_path(doc_id), params=params)

    def put(self, doc_id: str, fields: Mapping[str, Any] | None = None, **more: Any) -> str:
        """Writes a document over whatever is there, and returns its new revision."""
        body = {**(fields or {}), **more}
        if "_rev" not in body:
            head = self.session.get(f"{self.url}{doc_path(doc_id)}", timeout=TIMEOUT_SECONDS)
            if head.ok:
                body["_rev"] = head.json()["_rev"]
        return str(self._json("PUT", doc_path(doc_id), json=body)["rev"])

    def delete(self, doc_id: str, rev: str | None = None) -> str:
        """Deletes a document's winner, or the leaf named, and returns the deletion's revision."""
        rev = rev or self.get(doc_id)["_rev"]
        return str(self._json("DELETE", doc_path(doc_id), params={"rev": rev})["rev"])

    def purge(self, doc_id: str) -> None:
        """Removes a document, deleted or not, without a trace."""
        leaves = self.request("GET", doc_path(doc_id), params={"open_revs": "all"}, headers=JSON).json()
        self.request("POST", "/_purge", json={doc_id: [leaf["ok"]["_rev"] for leaf in leaves]})

    def bulk(self, docs: Iterable[Mapping[str, Any]], *, new_edits: bool = True) -> list[Json]:
        """Writes documents, as many as there are, and returns the answers' rows.

        Args:
            docs: the documents; with `new_edits=False` each with its `_rev` or `_revisions`.
            new_edits: False stores revisions as they are, which makes conflicts.
        """
        rows: list[Json] = []
        for part in chunks(docs, BULK_DOCS):
            body = {"docs": part, **({} if new_edits else {"new_edits": False})}
            rows += self.request("POST", "/_bulk_docs", json=body).json()
        return rows

    def leaf(self, doc_id: str, *revs: str, deleted: bool = False, **fields: Any) -> None:
        """Stores one leaf revision as replication would, with its ancestry.

        Args:
            doc_id: the document.
            revs: the leaf's revision first, then its parent and so on, e.g. "2-cc", "1-aa".
            deleted: whether the leaf is a deletion.
            fields: the document's fields.
        """
        generation = int(revs[0].partition("-")[0])
        revisions = {"start": generation, "ids": [rev.partition("-")[2] for rev in revs]}
        doc = {**fields, "_id": doc_id, "_rev": revs[0], "_revisions": revisions}
        self.bulk([{**doc, "_deleted": True} if deleted else doc], new_edits=False)

    def fill(self, count: int, *, start: int = 0, **fields: Any) -> list[str]:
        """Writes documents doc-000000, doc-000001 ... with a running number in `n`; returns their ids."""
        ids = [f"doc-{n:06}" for n in range(start, start + count)]
        self.bulk({"_id": doc_id, "n": start + n, **fields} for n, doc_id in enumerate(ids))
        return ids

    def changes(self, **params: Any) -> Json:
        """Returns the whole answer of one `_changes` request (feed=normal unless said otherwise)."""
        return self._json("GET", "/_changes", params=as_query(params))

    def stream(self, **params: Any) -> Iterator[Json]:
        """Yields the lines of a continuous feed, the last one (`last_seq`) included."""
        query = as_query({"feed": "continuous", **params})
        with self.request("GET", "/_changes", params=query, stream=True) as response:
            for line in response.iter_lines():
                if line:
                    yield json.loads(line)

    def documents(self) -> dict[str, Json]:
        """Returns every live document by its id."""
        rows = self._json("GET", "/_all_docs", params={"include_docs": "true"})["rows"]
        return {row["id"]: row["doc"] for row in rows}

    def close(self) -> None:
        """Closes the connections."""
        self.session.close()

    def _json(self, method: str, path: str = "", **options: Any) -> Json:
        answer: Json = self.request(method, path, **options).json()
        return answer


def doc_path(doc_id: str) -> str:
    """Returns a document's path below its database; a design or local document keeps its first slash."""
    kind, slash, rest = doc_id.partition("/")
    if slash and kind in {"_design", "_local"}:
        return f"/{kind}/{quote(rest, safe='')}"
    return f"/{quote(doc_id, safe='')}"


def as_query(params: Mapping[str, Any]) -> dict[str, Any]:
    """Writes booleans as CouchDB reads them."""
    return {key: json.dumps(value) if isinstance(value, bool) else value for key, value in params.items()}


def chunks(items: Iterable[Mapping[str, Any]], count: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    """Cuts what may be an endless stream into lists."""
    rest = iter(items)
    while part := list(islice(rest, count)):
        yield part
