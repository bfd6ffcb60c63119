"""CouchDB databases as targets, read with plain requests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import requests

from checkpoints import TailKey
from pillows.couch.options import CouchConnection, Timeouts
from pillows.transports.couchdb.options import CouchdbOutput
from pillows.transports.couchdb.transport import CouchdbTransport
from tests.conformance.target import KEY, Target
from tests.servers.couchdb.process import CouchDB
from tests.servers.tcp_proxy import Fault, TcpProxy
from tests.support.couch_auth import to_auth

#: Where the connection of a write is lost: its request not yet whole, or its answer.
CUTS = {
    "before": Fault(kind="reset", direction="to_server", after_text=b"_bulk_docs"),
    "after": Fault(kind="reset", direction="to_client", after_text=b'{"ok":true,"id"'),
}


class CouchTarget(Target):
    """Databases of one test on a server; `lines` has no place there."""

    has_many = False
    has_builds = False
    tells_others = True
    bad_row = {"text": "x" * 8_100_000}  # noqa: RUF012  # above [couchdb] max_document_size
    busy_faults = ("away",)
    cut_places = ("before", "after")

    def __init__(self, couch: Any, proxy: TcpProxy, server: CouchDB | None = None) -> None:
        self.couch = couch
        self.proxy = proxy
        self.server = server
        self.prefix = f"target-{uuid.uuid4().hex[:12]}-"

    def connection(self) -> CouchConnection:
        auth = to_auth(self.couch.auth)
        return CouchConnection(url=self.proxy.url, auth=auth, timeouts=Timeouts(connect="2s"))

    def transport(self, *outputs: str, key: TailKey = KEY) -> CouchdbTransport:
        databases = {output: CouchdbOutput(database=self.prefix + output) for output in outputs}
        return CouchdbTransport("copy", key, self.connection(), databases)

    def request(self, method: str, output: str, path: str = "", **options: Any) -> Any:
        url = f"{self.couch.url}/{self.prefix}{output}{path}"
        answer = requests.request(method, url, auth=self.couch.auth, timeout=60, **options)
        answer.raise_for_status()
        return answer.json()

    def read(self, output: str) -> dict[str, list[dict[str, Any]]]:
        rows = self.request("GET", output, "/_all_docs?include_docs=true")["rows"]
        return {
            row["id"]: [{name: value for name, value in row["doc"].items() if name != "pillowd_version"}]
            for row in rows
        }

    def write_version(self, output: str, id: str) -> int | None:
        (found,) = self.request("POST", output, "/_bulk_get", json={"docs": [{"id": id}]})["results"]
        leaves = [one["ok"] for one in found["docs"] if "ok" in one]
        assert len(leaves) <= 1
        return leaves[0]["pillowd_version"] if leaves else None

    def open_connections(self) -> int:
        connections = psutil.Process().net_connections("tcp")
        # The proxy lives in this process, too: its own ends have its port as theirs.
        return sum(
            bool(one.raddr) and one.raddr.port == self.proxy.port and one.status == psutil.CONN_ESTABLISHED
            for one in connections
        )

    def restart(self) -> None:
        assert self.server is not None
        self.server.restart()

    @contextmanager
    def busy(self, fault: str) -> Iterator[None]:
        with self.proxy.refusing():
            yield

    @contextmanager
    def cut(self, place: str) -> Iterator[None]:
        self.proxy.fail(CUTS[place])
        self.proxy.cut()
        yield

    def drop(self) -> None:
        for name in requests.get(f"{self.couch.url}/_all_dbs", auth=self.couch.auth, timeout=60).json():
            if name.startswith(self.prefix):
                requests.delete(f"{self.couch.url}/{name}", auth=self.couch.auth, timeout=60)
