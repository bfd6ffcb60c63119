"""What many databases in one pillow cost: memory, descriptors, connections, and the time to the head.

Usage: python -m bench.databases [--databases N ...] [--docs N] [--target sqlite|postgres|null]
                                 [--svg FILE] [--json FILE]

For each number of databases, on a server of the tests that is new:

1. "bare": 16 readers do nothing but fetch the changes of each database (`bench.read_databases`), once before
   and once after the load; the faster run counts.
2. The daemon loads all databases, from the start of its process until all of them are parked.
3. It is left alone, and its memory, descriptors and CPU are measured.
4. It is stopped, 12 databases get a document, and it is started again, until it is at the head.

Sockets are counted every second, from `/proc`, as `ss` does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import urllib3
from rich.console import Console
from rich.table import Table

from bench.plot import Panel, draw
from bench.servers import HEAD, Pillowd
from tests.servers.couchdb.process import CouchDB
from tests.servers.postgres import Postgres
from tests.servers.source import Source

PREFIX = "bench-"
CHANGED = 12
DOCUMENT_BYTES = 300
#: Let the last saves end before the daemon counts as idle.
SETTLE_SECONDS = 6.0
#: Wait between two looks at the daemon, which cost it a little: short where a load is short.
LOOK_SECONDS_PER_DATABASE = 0.001
LONGEST_LOOK_SECONDS = 1.0

CONFIG = f"""{HEAD}\
    source: {{{{ connection: couch, databases: "{PREFIX}*" }}}}
    transport: [{{{{ connection: target{{output}} }}}}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number of databases.

    Attributes:
        databases: how many.
        bare_seconds: what 16 readers take that only fetch.
        load_seconds, restart_seconds: from the start of the process until it was at the head.
        idle_mib, most_mib: resident memory at the end of an idle time, and at most.
        descriptors: open ones when idle.
        most_sockets: TCP connections at most.
        idle_core: share of a core that it takes when idle.
    """

    databases: int
    bare_seconds: float
    load_seconds: float
    restart_seconds: float
    idle_mib: float
    most_mib: float
    descriptors: int
    most_sockets: int
    idle_core: float

    @property
    def ratio(self) -> float:
        """The time of the load, divided by that of the bare reading."""
        return self.load_seconds / self.bare_seconds


class Server:
    """A server with many databases.

    Args:
        source: its address.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._pool = urllib3.PoolManager(maxsize=1, headers=source.headers)

    def fill(self, databases: int, docs: int) -> None:
        """Create databases with documents, and the one that `_db_updates` needs."""
        self._send("PUT", "_global_changes")
        for number in range(databases):
            self._send("PUT", f"{PREFIX}{number:05}")
            self._put(number, range(docs))

    def change(self, databases: int) -> int:
        """Add a document to some of the databases, spread over all of them; return how many."""
        chosen = range(0, databases, -(-databases // CHANGED))
        for number in chosen:
            self._put(number, [999_999])
        return len(chosen)

    def _put(self, number: int, ids: Sequence[int]) -> None:
        docs = [{"_id": f"{id:06}", "n": id, "text": "x" * (DOCUMENT_BYTES - 60)} for id in ids]
        self._send("POST", f"{PREFIX}{number:05}/_bulk_docs", {"docs": docs})

    def _send(self, method: str, path: str, body: Any = None) -> None:
        answer = self._pool.request(method, f"{self._source.url}/{path}", json=body)
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status}")


class Daemon:
    """A daemon whose memory, descriptors and sockets are watched.

    Args:
        folder: of its configuration and state.
        environ: more environment variables.

    Attributes:
        most_mib, most_sockets: seen so far.
    """

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._pillowd = Pillowd(folder)
        self.most_mib, self.most_sockets = 0.0, 0
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            self._pillowd.command, env=os.environ | environ, stdout=subprocess.DEVNULL
        )
        self._facts = psutil.Process(self._process.pid)
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def wait(self, databases: int, changes: int) -> float:
        """Wait until so many databases are parked and changes carried; return the seconds since the start."""

        def is_at_the_head(tail: Mapping[str, Any]) -> bool:
            is_loaded = tail["changes"] >= changes and tail["databases"] == {"parked": databases}
            return bool(tail["state"] == "live" and is_loaded)

        poll_seconds = min(LONGEST_LOOK_SECONDS, 0.05 + databases * LOOK_SECONDS_PER_DATABASE)
        self._pillowd.wait(self._process, is_at_the_head, poll_seconds=poll_seconds)
        return time.perf_counter() - self._began

    def idle(self, seconds: float) -> tuple[float, float, int]:
        """Return the MiB, the share of a core and the descriptors of an idle time."""
        time.sleep(SETTLE_SECONDS)
        before, began = self._cpu_seconds(), time.perf_counter()
        time.sleep(seconds)
        core = (self._cpu_seconds() - before) / (time.perf_counter() - began)
        return self._mib(), core, self._facts.num_fds()

    def stop(self) -> None:
        """End it, as systemd does."""
        self._ended.set()
        self._watcher.join()
        self._process.terminate()
        self._process.wait(60)

    def _watch(self) -> None:
        while not self._ended.wait(1.0) and self._process.poll() is None:
            self.most_mib = max(self.most_mib, self._mib())
            self.most_sockets = max(self.most_sockets, len(self._facts.net_connections("tcp")))

    def _mib(self) -> float:
        return float(self._facts.memory_info().rss) / 2**20

    def _cpu_seconds(self) -> float:
        times = self._facts.cpu_times()
        return float(times.user + times.system)


@contextmanager
def running(folder: Path, environ: dict[str, str]) -> Iterator[Daemon]:
    """Start a daemon, and stop it at the end."""
    daemon = Daemon(folder, environ)
    try:
        yield daemon
    finally:
        daemon.stop()


def measure(databases: int, docs: int, target: str, idle_seconds: float) -> Measured:
    """Measure one number of databases."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-bench-")))
        folder.chmod(0o755)
        couch = stack.enter_context(CouchDB(memory=True))
        source = Source(url=couch.url, auth=couch.auth)
        server = Server(source)
        server.fill(databases, docs)
        output = "" if target == "null" else ", table: bench"
        config = CONFIG.format(
            folder=folder,
            couch=source.settings,
            target=f"{{ {_make_target(target, folder, stack)} }}",
            output=output,
        )
        (folder / "pillowd.yaml").write_text(config)
        bare = [_read_bare(source, databases)]
        with running(folder, dict(source.environ)) as daemon:
            load_seconds = daemon.wait(databases, databases * docs)
            idle_mib, idle_core, descriptors = daemon.idle(idle_seconds)
        bare.append(_read_bare(source, databases))
        changed = server.change(databases)
        with running(folder, dict(source.environ)) as again:
            restart_seconds = again.wait(databases, databases * docs + changed)
        return Measured(
            databases=databases,
            bare_seconds=min(bare),
            load_seconds=load_seconds,
            restart_seconds=restart_seconds,
            idle_mib=idle_mib,
            most_mib=daemon.most_mib,
            descriptors=descriptors,
            most_sockets=max(daemon.most_sockets, again.most_sockets),
            idle_core=idle_core,
        )


def _make_target(target: str, folder: Path, stack: ExitStack) -> str:
    """Return the settings of the target's connection; start its server."""
    if target == "postgres":
        return f'type: postgres, dsn: "{stack.enter_context(Postgres()).dsn}"'
    return f"type: sqlite, path: {folder}/target.sqlite" if target == "sqlite" else 'type: "null"'


def _read_bare(source: Source, databases: int) -> float:
    command = [sys.executable, "-m", "bench.read_databases", source.url, PREFIX, str(databases)]
    done = subprocess.run(
        command, env=os.environ | source.environ, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


COLUMNS: dict[str, Callable[[Measured], str]] = {
    "databases": lambda one: f"{one.databases:,}",
    "first load, s": lambda one: f"{one.load_seconds:.1f}",
    "bare, s": lambda one: f"{one.bare_seconds:.1f}",
    "ratio": lambda one: f"{one.ratio:.2f}",
    "restart, s": lambda one: f"{one.restart_seconds:.1f}",
    "idle MiB": lambda one: f"{one.idle_mib:.0f}",
    "most MiB": lambda one: f"{one.most_mib:.0f}",
    "descriptors": lambda one: str(one.descriptors),
    "most sockets": lambda one: str(one.most_sockets),
    "idle, % of a core": lambda one: f"{one.idle_core * 100:.2f}",
}


def show(found: Sequence[Measured], docs: int, target: str) -> None:
    """Print the table, and what 1,000 more databases cost."""
    load = statistics.mean(os.getloadavg()[:2])
    title = f"{docs} documents each, into {target}, {os.cpu_count()} cores, load average {load:.1f}"
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(*(write(one) for write in COLUMNS.values()))
    console = Console(width=140)
    console.print(table)
    for few, many in pairwise(found):
        if few.databases >= 1000:
            more = (many.idle_mib - few.idle_mib) / (many.databases - few.databases) * 1000
            console.print(f"1,000 databases more than {few.databases:,}: {more:.2f} MiB", highlight=False)


def plot(found: Sequence[Measured]) -> str:
    """Return the picture of the page on scale."""

    def line(value: Callable[[Measured], float]) -> dict[int, float]:
        return {one.databases: value(one) for one in found}

    panels = [
        Panel(title="Memory, MiB", lines={"idle": line(lambda one: one.idle_mib)}),
        Panel(
            title="Descriptors and sockets",
            lines={
                "descriptors, idle": line(lambda one: one.descriptors),
                "sockets at most": line(lambda one: one.most_sockets),
            },
        ),
        Panel(
            title="Time to the head, s",
            lines={
                "first load": line(lambda one: one.load_seconds),
                "restart, 12 changed": line(lambda one: one.restart_seconds),
            },
            is_log=True,
        ),
    ]
    title = "Memory, descriptors and time to the head of a pillow over the number of its databases"
    return draw(title, "databases", panels)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.databases", description=__doc__.splitlines()[0])
    parser.add_argument("--databases", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--docs", type=int, default=10)
    parser.add_argument("--target", choices=["sqlite", "postgres", "null"], default="sqlite")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds")
    parser.add_argument("--svg", type=Path, help="draw the figures there")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    found: list[Measured] = []
    for databases in given.databases:
        print(f"measuring {databases:,} databases ...", flush=True)
        found.append(measure(databases, given.docs, given.target, given.idle))
    show(found, given.docs, given.target)
    if given.svg:
        given.svg.write_text(plot(found))
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=2))


if __name__ == "__main__":
    main()
