"""One CouchDB database behind a counting proxy, three targets, and daemons between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from checkpoints import StoreError
from daemon.http.client import HttpClient
from tests.acceptance import stores, wire
from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase
from tests.servers.tcp_proxy import TcpProxy

#: The targets, by the name of their connection.
TARGETS = ("postgres", "elasticsearch", "sqlite")


class World:
    """A source, targets, and daemons.

    Args:
        folder: an empty folder.
        couch: the source.
        proxy: before its server; daemons read through it.
        postgres_dsn, elasticsearch_url: the targets' servers.
        prefix: what names in Elasticsearch begin with.

    Attributes:
        connections: of a configuration, by name; `couch` is the source.
    """

    def __init__(
        self,
        folder: Path,
        *,
        couch: CouchDatabase,
        proxy: TcpProxy,
        postgres_dsn: str,
        elasticsearch_url: str,
        prefix: str,
    ) -> None:
        self.folder = folder
        self.couch = couch
        self.proxy = proxy
        self.postgres_dsn = postgres_dsn
        self.elasticsearch_url = elasticsearch_url
        self.sqlite_path = folder / "target.sqlite"
        self._prefix = prefix
        self._built: list[Pillowd] = []
        source = couchdb(proxy.url, couch.auth)
        self.connections: dict[str, dict[str, Any]] = {
            "couch": source,
            "postgres": {"type": "postgres", "dsn": postgres_dsn},
            "elasticsearch": {"type": "elasticsearch", "hosts": [elasticsearch_url]},
            "sqlite": {"type": "sqlite", "path": str(self.sqlite_path)},
        }

    def fill(self, count: int, *, start: int = 0) -> None:
        """Writes documents of about 500 bytes."""
        self.couch.bulk(_documents(start, start + count))

    def pillow(self, name: str, *targets: str, source: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """A pillow on the source, into some targets; `name` names tables and indices."""
        return {
            "source": {"connection": "couch", "database": self.couch.name, **(source or {})},
            "transport": [self._entry(name, target) for target in targets or TARGETS],
            **more,
        }

    def _entry(self, name: str, target: str) -> dict[str, Any]:
        if target == "elasticsearch":
            return {"connection": target, "index": self.alias(name), "mapping": {"dynamic": False}}
        return {"connection": target, "table": name}

    def alias(self, name: str) -> str:
        """The index of a pillow."""
        return f"{self._prefix}{name}"

    def pillowd(self, pillows: Mapping[str, Any], **sections: Any) -> Pillowd:
        """A daemon with these pillows, not yet started."""
        folder = self.folder / f"pillowd{len(self._built)}"
        folder.mkdir()
        daemon = {"plugins_path": [str(self.folder)]}
        built = Pillowd(
            folder, pillows=pillows, connections=self.connections, daemon=daemon, sections=sections
        )
        self._built.append(built)
        return built

    def close(self) -> None:
        for each in self._built:
            each.__exit__()

    def read(self, target: str, name: str) -> stores.Rows:
        """Returns the rows of a pillow in a target."""
        if target == "postgres":
            return stores.postgres(self.postgres_dsn, name)
        if target == "sqlite":
            return stores.sqlite(self.sqlite_path, name)
        return stores.elasticsearch(self.elasticsearch_url, self.alias(name))

    def differences(self, name: str, *targets: str) -> dict[str, list[str]]:
        """Which targets are not equal to the source, and where."""
        expected = stores.couchdb(self.couch)
        found = {t: stores.differences(expected, self.read(t, name)) for t in targets or TARGETS}
        return {target: wrong for target, wrong in found.items() if wrong}

    def written(self, name: str) -> int:
        """How many rows PostgreSQL has of a pillow."""
        return stores.postgres_count(self.postgres_dsn, name)


def statuses(daemon: Pillowd) -> dict[str, dict[str, Any]]:
    """Returns the status of each pillow of the running daemon, by name; none while it starts."""
    try:
        tails: Sequence[dict[str, Any]] = call(daemon, "list_pillows")["pillows"]
    except StoreError:
        return {}
    return {tail["pillow"]: tail for tail in tails}


def call(daemon: Pillowd, name: str, **arguments: Any) -> Any:
    """Calls an operation of the running daemon over its admin socket."""
    return HttpClient(daemon.folder / "admin.sock").call(name, **arguments)


def live(daemon: Pillowd, *names: str) -> bool:
    """Whether pillows (all, unless named) are caught up."""
    said = statuses(daemon)
    return bool(said) and all(said[name]["state"] == "live" for name in names or said)


def complete(daemon: Pillowd) -> bool:
    """Whether everything was read of the pillow `cases`, and its pass is over."""
    return live(daemon) and statuses(daemon)["cases"]["pass_number"] is None


class Runs:
    """The responses that each run of a daemon was sent, as the proxy saw them.

    Args:
        proxy: between CouchDB and the daemon, and nobody else.
    """

    def __init__(self, proxy: TcpProxy) -> None:
        self._proxy = proxy
        self._ends: list[int] = []

    def ended(self) -> None:
        """A run is over: later connections are those of the next one."""
        self._ends.append(len(self._proxy.connections))

    def sent(self) -> list[wire.Sent]:
        """Run by run."""
        ends = [0, *self._ends]
        return [wire.sent(self._proxy.connections[begin:end]) for begin, end in pairwise(ends)]


def _documents(begin: int, end: int) -> Iterator[dict[str, Any]]:
    for number in range(begin, end):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        yield {
            "_id": digest[:20],
            "n": number,
            "nested": {"list": [number, None, digest]},
            "text": digest * 5,
        }
