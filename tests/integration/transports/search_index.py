"""A test's own view of a search node: reads what the transport wrote, and gets in its way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlsplit

import requests

from checkpoints import TailKey
from pillows.transports.common.search.options import SearchConnection, SearchOutput
from pillows.transports.common.search.transport import SearchTransport
from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from tests.conformance.target import KEY, at, document

#: Takes any JSON object.
ANYTHING: Mapping[str, Any] = {"mapping": {"dynamic": False}}


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and what the names of a test's indices begin with.

    Attributes:
        url: of the node.
        prefix: of aliases and indices.
        kind: the transport that writes to it.
    """

    url: str
    prefix: str = ""
    kind: type[SearchTransport] = ElasticsearchTransport

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a proxy."""
        parts = urlsplit(self.url)
        return (parts.hostname or "127.0.0.1", self.port)

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 9200

    def transport(
        self,
        outputs: Mapping[str, Mapping[str, Any]],
        *,
        key: TailKey = KEY,
        url: str = "",
        **connection: Any,
    ) -> SearchTransport:
        """A transport, not yet opened; each output's alias is the prefix and its name."""
        settings: Any = {"hosts": (url or self.url,), **connection}
        return self.kind(
            "search",
            key,
            cast("SearchConnection", self.kind.Connection(**settings)),
            {
                name: SearchOutput(**{"index": self.alias(name), **options})
                for name, options in outputs.items()
            },
        )

    def alias(self, output: str) -> str:
        """The alias that is searched."""
        return f"{self.prefix}{output}"

    def ask(self, method: str, path: str, body: Any = None, *, ok: bool = True) -> Any:
        """Any request, answered in JSON."""
        answer = requests.request(method, f"{self.url}/{path}", json=body, timeout=60)
        if ok:
            assert answer.ok, answer.text
        return answer.json()

    def indices(self, output: str = "") -> list[str]:
        """Names of the indices of an output, or of all."""
        listed = self.ask("GET", f"_cat/indices/{self.alias(output)}*?format=json&expand_wildcards=all")
        return sorted(one["index"] for one in listed)

    def behind(self, output: str) -> list[str]:
        """Names of the indices that the alias points to."""
        found = self.ask("GET", f"_alias/{self.alias(output)}", ok=False)
        return [] if "error" in found else sorted(found)

    def read(self, output: str) -> dict[str, dict[str, Any]]:
        """Every document that a search through the alias finds."""
        self.ask("POST", f"{self.alias(output)}/_refresh")
        found = self.ask("POST", f"{self.alias(output)}/_search", {"size": 10_000})
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    def write_version(self, output: str, id: str) -> int | None:
        """The stored version of a document. Of a deleted one it takes a conflict to learn it."""
        (index,) = self.indices(output)
        found = self.ask("GET", f"{index}/_doc/{quote(id, safe='')}", ok=False)
        if found.get("found"):
            return int(found["_version"])
        place = f"{index}/_doc/{quote(id, safe='')}?version=0&version_type=external"
        told = self.ask("DELETE", place, ok=False)
        current = re.search(r"current version \[(\d+)\]", str(told))
        return int(current[1]) if current else None

    def settings(self, output: str, **values: Any) -> None:
        """Changes settings of an output's only index."""
        (index,) = self.indices(output)
        self.ask("PUT", f"{index}/_settings", {name.replace("__", "."): v for name, v in values.items()})


@contextmanager
def aside(node: Node, fault: str, output: str = "docs") -> Iterator[None]:
    """While open, the index takes no writes: `flood` (429), `blocked` (403), `closed` (400)."""
    (index,) = node.indices(output)
    if fault == "closed":
        node.ask("POST", f"{index}/_close")
        yield
        node.ask("POST", f"{index}/_open?wait_for_active_shards=1")
        return
    setting = {"flood": "read_only_allow_delete", "blocked": "write"}[fault]
    node.settings(output, **{f"index.blocks.{setting}": True})
    yield
    node.settings(output, **{f"index.blocks.{setting}": None})


@contextmanager
def running(
    node: Node, *, epoch: int = 1, url: str = "", connection: Any = None, **outputs: Any
) -> Iterator[SearchTransport]:
    one = node.transport(outputs or {"docs": ANYTHING}, url=url, **(connection or {}))
    try:
        one.open()
        one.acquire(at("0", epoch=epoch))
        yield one
    finally:
        one.close()


def many(count: int, version: int = 1, **row: Any) -> list[Any]:
    return [document(f"d{n:05}", version, {"n": n, **row}) for n in range(count)]
