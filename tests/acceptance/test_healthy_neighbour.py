"""Whatever happens to other pillows, a healthy one keeps its pace, and the daemon stays within its bounds."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import PILLOWD, Pillowd, couchdb
from tests.acceptance.world import live
from tests.servers.couch_client import CouchDatabase
from tests.support.sizes import size

#: The healthy pillow's source is written for so long, at this pace.
WATCH_SECONDS, WRITES_PER_SECOND = size(ci=4, proof=60), 5
#: What of it must have arrived, compared with a pillow that is alone.
SHARE = 0.97
MAX_MIB = 300
STOP_SECONDS = size(ci=15.0, proof=5.0)

#: A server that answers every request without an end; the argument says with what.
FLOOD = r"""
import socketserver, sys

BEGIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
LINE = b"a" * 65536
FIRST, REPEATED = {
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "chunks": (BEGIN, b"1\r\n \r\n" * 1000),
    "line": (BEGIN + b'1\r\n"\r\n', b"%x\r\n%b\r\n" % (len(LINE), LINE)),
}[sys.argv[1]]

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(65536)
        try:
            self.request.sendall(FIRST)
            while True:
                self.request.sendall(REPEATED)
        except OSError:
            pass

socketserver.ThreadingTCPServer.daemon_threads = True
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The neighbours of the healthy pillow.

    Attributes:
        pillows, connections: of the configuration, by name.
        program: what starts the daemon.
        level: of its log.
    """

    pillows: Mapping[str, Any] = field(default_factory=dict)
    connections: Mapping[str, Any] = field(default_factory=dict)
    program: tuple[str, ...] = PILLOWD
    level: str = "info"


def into_sqlite(connection: str, database: str, table: str, target: str = "target") -> dict[str, Any]:
    return {
        "source": {"connection": connection, "database": database},
        "transport": [{"connection": target, "table": table}],
    }


# --- the neighbours


@contextmanager
def dead_dns(folder: Path, database: CouchDatabase) -> Iterator[Neighbours]:
    """Twelve pillows whose name server never answers; needs root, for a resolv.conf of their own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare, for a /etc/resolv.conf of its own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.5.3.53", 53))
        resolv = folder / "resolv.conf"
        resolv.write_text("nameserver 127.5.3.53\noptions timeout:30 attempts:5\n")
        mount = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
        hosts = {f"couch{n}": {"type": "couchdb", "url": f"http://host{n}.example:5984"} for n in range(12)}
        yield Neighbours(
            pillows={name: into_sqlite(name, database.name, name) for name in hosts},
            connections=hosts,
            program=("unshare", "-m", "sh", "-c", mount, "sh", *PILLOWD),
        )


@contextmanager
def locked_sqlite(folder: Path, database: CouchDatabase) -> Iterator[Neighbours]:
    """Twenty-five pillows on an SQLite database that another process never unlocks."""
    with closing(sqlite3.connect(folder / "locked.sqlite", isolation_level=None)) as connection:
        connection.execute("create table other (n)")
        connection.execute("begin exclusive")
        yield Neighbours(
            pillows={
                f"locked{n}": into_sqlite("couch", database.name, f"locked{n}", "locked") for n in range(25)
            },
            connections={"locked": {"type": "sqlite", "path": str(folder / "locked.sqlite")}},
        )


@contextmanager
def unread_log(folder: Path, database: CouchDatabase) -> Iterator[Neighbours]:
    """A log in a pipe that nobody reads, and a pillow that fills it."""
    pipe = folder / "stderr"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield Neighbours(
            pillows={"chatty": into_sqlite("couch", database.name, "chatty") | {"batch": {"max_docs": 1}}},
            program=("sh", "-c", f'exec "$@" 2>{pipe}', "sh", *PILLOWD),
            level="debug",
        )
        assert len(os.read(reading, 1 << 20)) > 60_000, "the pipe was not full"
    finally:
        os.close(reading)


@contextmanager
def floods(*kinds: str, database: CouchDatabase) -> Iterator[Neighbours]:
    with ExitStack() as stack:
        urls = {}
        for kind in kinds:
            server = subprocess.Popen([sys.executable, "-c", FLOOD, kind], stdout=subprocess.PIPE, text=True)
            stack.callback(server.wait)
            stack.callback(server.kill)
            assert server.stdout is not None
            stack.enter_context(server.stdout)
            urls[kind] = f"http://127.0.0.1:{int(server.stdout.readline())}"
        yield Neighbours(
            pillows={kind: into_sqlite(kind, database.name, kind) for kind in kinds},
            connections={kind: {"type": "couchdb", "url": url} for kind, url in urls.items()},
        )


@contextmanager
def flooding_source(_folder: Path, database: CouchDatabase) -> Iterator[Neighbours]:
    """Two sources: one sends interim answers without end, one a body without end in chunks of one byte."""
    with floods("continue", "chunks", database=database) as neighbours:
        yield neighbours


@contextmanager
def endless_line(_folder: Path, database: CouchDatabase) -> Iterator[Neighbours]:
    """A source whose line never ends."""
    with floods("line", database=database) as neighbours:
        yield neighbours


NEIGHBOURS = {
    "c1_flooding_source": flooding_source,
    "c2_dead_dns": dead_dns,
    "c2_locked_sqlite": locked_sqlite,
    "c3_unread_log": unread_log,
    "c4_endless_line": endless_line,
}


# --- the measurement


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of a daemon.

    Attributes:
        arrived: documents that the healthy pillow has written.
        mib: resident memory at most.
        stop_seconds: from SIGTERM to the end.
    """

    arrived: int
    mib: float
    stop_seconds: float


def measure(folder: Path, couch: Any, database: CouchDatabase, neighbours: Neighbours) -> Measured:
    """Run a daemon with a healthy pillow and its neighbours while the source is written at a steady pace."""
    folder.mkdir()
    connections = {
        "couch": couchdb(couch.url, couch.auth),
        "target": {"type": "sqlite", "path": str(folder / "others.sqlite")},
        "healthy": {"type": "sqlite", "path": str(folder / "healthy.sqlite")},
        **neighbours.connections,
    }
    healthy = into_sqlite("couch", database.name, "healthy", "healthy")
    with Pillowd(
        folder,
        pillows={"healthy": healthy, **neighbours.pillows},
        connections=connections,
        sections={"logging": {"level": neighbours.level}},
    ) as daemon:
        daemon.program = neighbours.program
        daemon.start()
        daemon.wait_for(lambda: live(daemon, "healthy"))
        before = count(folder / "healthy.sqlite")
        write_steadily(database)
        time.sleep(1.0)
        arrived = count(folder / "healthy.sqlite") - before
        mib = max_resident_mib(daemon.child.pid)
        began = time.monotonic()
        daemon.signal(signal.SIGTERM)
        daemon.ended()
        return Measured(arrived=arrived, mib=mib, stop_seconds=time.monotonic() - began)


def write_steadily(database: CouchDatabase) -> None:
    """Write documents at `WRITES_PER_SECOND` for `WATCH_SECONDS`."""
    began = time.monotonic()
    for number in range(WATCH_SECONDS * WRITES_PER_SECOND):
        time.sleep(max(0.0, began + number / WRITES_PER_SECOND - time.monotonic()))
        database.bulk([{"n": number}])


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (rows,) = connection.execute("select count(*) from healthy").fetchone()
    return int(rows)


def max_resident_mib(pid: int) -> float:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.timeout(size(ci=240, proof=600))
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_a_healthy_pillow_keeps_its_pace_beside(
    neighbour: str, tmp_path: Path, couch: Any, couch_db: CouchDatabase
) -> None:
    couch_db.fill(500)
    alone = measure(tmp_path / "alone", couch, couch_db, Neighbours())
    with NEIGHBOURS[neighbour](tmp_path, couch_db) as neighbours:
        beside = measure(tmp_path / "beside", couch, couch_db, neighbours)
    print(f"\n{neighbour}: alone {alone}, beside {beside}")
    assert beside.arrived >= SHARE * alone.arrived
    assert beside.mib < MAX_MIB
    assert beside.stop_seconds < STOP_SECONDS
