"""Everything in one go, on the same documents and the same servers: `make bench`.

    python -m bench [--docs N] [--json FILE]

PILLOWD_BENCH_COUCHDB_URL points it at a CouchDB server of yours, `http://user:password@host:5984` if it
wants to know who we are; it creates the database `pillowd_bench` there. Its processes are not measured
unless it runs on this machine and PILLOWD_BENCH_COUCHDB_PID names it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import corpus
from bench.meter import Reading, measure
from checkpoints import StoreError
from daemon.http.client import HttpClient
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.opensearch import OpenSearch
from tests.servers.postgres import Postgres
from tests.servers.source import Source, source

FEED = "_changes?style=all_docs&seq_interval=100"

CONFIG = """
version: 1
daemon:
  state_dir: {folder}/state
  admin: {{ listen: "unix:{folder}/admin.sock" }}
  http: {{ listen: null }}
logging: {{ level: warning }}
connections:
  couch: {{ {couch} }}
  target: {target}
pillows:
  bench:
    source: {{ connection: couch, database: {database} }}
    transport: [{{ connection: target, {output} }}]
"""

#: Servers whose CPU is measured.
SERVERS = ("couchdb", "postgres", "elasticsearch", "opensearch")


class Bench:
    """One run of everything.

    Args:
        docs: how many documents.
        folder: for servers' data, configs and the recorded feed.
        stack: ends the servers.
    """

    def __init__(self, docs: int, folder: Path, stack: ExitStack) -> None:
        self.docs = docs
        self.folder = folder
        self.servers: dict[str, int] = {}
        self.couch = self._couch(stack)
        self.database = replace(self.couch, url=f"{self.couch.url}/pillowd_bench")
        self.postgres = stack.enter_context(Postgres(data_dir=folder / "postgres"))
        self.elastic = stack.enter_context(Elasticsearch(data_dir=folder / "elasticsearch"))
        self.open = stack.enter_context(OpenSearch(data_dir=folder / "opensearch"))
        self.servers |= {
            "postgres": self.postgres.pid or 0,
            "elasticsearch": self.elastic.pid or 0,
            "opensearch": self.open.pid or 0,
        }
        self.recorded = folder / "changes.json"
        self.curlrc = folder / "curlrc"
        self.curlrc.touch(mode=0o600)
        self.curlrc.write_text(self.couch.curl)

    def _couch(self, stack: ExitStack) -> Source:
        url = os.environ.get("PILLOWD_BENCH_COUCHDB_URL")
        if url:
            pid = os.environ.get("PILLOWD_BENCH_COUCHDB_PID")
            self.servers |= {"couchdb": int(pid)} if pid else {}
            return source(url)
        peer = stack.enter_context(CouchDB(data_dir=self.folder / "couchdb"))
        self.servers["couchdb"] = peer.pid or 0
        return Source(url=peer.url, auth=peer.auth)

    def run(self) -> list[Reading]:
        """Loads the documents, warms the servers, measures every participant."""
        corpus.load(self.database, self.docs)
        self._record()
        participants: list[Callable[[], Reading]] = [
            self.curl,
            self.bulk_get,
            self.copy,
            self.bulk,
            self.bulk_opensearch,
            self.follower,
            self.pillowd_postgres,
            self.pillowd_elasticsearch,
            self.pillowd_opensearch,
            self.pipeline_alone,
        ]
        readings = []
        for participant in participants:
            print(f"measuring {participant.__name__} ...", flush=True)
            readings.append(participant())
        return readings

    def _record(self) -> None:
        """Warms CouchDB, and keeps a body of its feed for the reader alone."""
        subprocess.run(self._curl(str(self.recorded)), check=True)

    def _curl(self, file: str) -> list[str]:
        url = f"{self.database.url}/{FEED}&include_docs=true"
        return ["curl", "--config", str(self.curlrc), "-sSf", "-o", file, url]

    # --- what there is to beat

    def curl(self) -> Reading:
        return self._measure("curl include_docs", self._curl("/dev/null"))

    def bulk_get(self) -> Reading:
        return self._python("ids + 4 x _bulk_get", "bench.bulk_get", self.database.url)

    def copy(self) -> Reading:
        return self._python("COPY alone", "bench.targets", "copy", self.postgres.dsn, str(self.docs))

    def bulk(self) -> Reading:
        return self._python("_bulk alone", "bench.targets", "bulk", self.elastic.url, str(self.docs))

    def bulk_opensearch(self) -> Reading:
        return self._python(
            "_bulk into OpenSearch alone", "bench.targets", "bulk", self.open.url, str(self.docs)
        )

    def follower(self) -> Reading:
        arguments = (self.database.url, self.postgres.dsn)
        return self._python("ChangesFollower + psycopg", "bench.follower", *arguments)

    # --- pillowd

    def pillowd_postgres(self) -> Reading:
        target = f'{{ type: postgres, dsn: "{self.postgres.dsn}" }}'
        return self._pillowd("pillowd into PostgreSQL", target, "table: bench")

    def pillowd_elasticsearch(self) -> Reading:
        target = f'{{ type: elasticsearch, hosts: ["{self.elastic.url}"] }}'
        return self._pillowd("pillowd into Elasticsearch", target, "index: bench")

    def pillowd_opensearch(self) -> Reading:
        target = f'{{ type: opensearch, hosts: ["{self.open.url}"] }}'
        return self._pillowd("pillowd into OpenSearch", target, "index: bench")

    def pipeline_alone(self) -> Reading:
        return self._python("reader and pipeline alone", "bench.alone", str(self.recorded))

    def _pillowd(self, name: str, target: str, output: str) -> Reading:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        config = folder / "pillowd.yaml"
        config.write_text(
            CONFIG.format(
                folder=folder,
                couch=self.couch.settings,
                database="pillowd_bench",
                target=target,
                output=output,
            )
        )
        command = [sys.executable, "-m", "daemon", "run", "--all", "--config", str(config)]
        return self._measure(name, command, done=lambda process: self._caught_up(process, folder))

    def _caught_up(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        while process.poll() is None:
            time.sleep(0.2)
            try:
                (tail,) = HttpClient(folder / "admin.sock").call("list_pillows")["pillows"]
            except StoreError:
                continue  # it is still starting
            if tail["state"] == "live" and tail["changes"] >= self.docs:
                return
        raise SystemExit(f"pillowd ended with {process.returncode}")

    # --- helpers

    def _python(self, name: str, module: str, *arguments: str) -> Reading:
        return self._measure(name, [sys.executable, "-m", module, *arguments])

    def _measure(self, name: str, command: list[str], **options: Any) -> Reading:
        return measure(name, self.docs, command, self.servers, env=self.couch.environ, **options)


def ratios(readings: list[Reading], cores: int) -> dict[str, float]:
    """pillowd beside curl, and beside the machine's bound.

    The bound is `min(a, b, cores / (CPU seconds a document of a + of b + of the pipeline alone))`,
    where a is the fastest raw read of the documents and b their load alone.
    """
    by = {reading.name: reading for reading in readings}
    curl = by["curl include_docs"]
    read = max(curl, by["ids + 4 x _bulk_get"], key=lambda reading: reading.rate)
    alone = by["reader and pipeline alone"].cpu_micros()
    found = {"reader and pipeline alone, microseconds of CPU a change": alone}
    for target, server, load in (
        ("PostgreSQL", "postgres", "COPY alone"),
        ("Elasticsearch", "elasticsearch", "_bulk alone"),
        ("OpenSearch", "opensearch", "_bulk into OpenSearch alone"),
    ):
        ours, b = by[f"pillowd into {target}"], by[load]
        each = (read.cpu_micros("couchdb") + b.cpu_micros(server) + alone) / 1e6
        bound = min(read.rate, b.rate, cores / each)
        found[f"{target}: of curl"] = ours.rate / curl.rate
        found[f"{target}: of the machine's bound ({bound:,.0f}/s)"] = ours.rate / bound
    follower = by["ChangesFollower + psycopg"]
    found["ChangesFollower + psycopg: of curl"] = follower.rate / curl.rate
    return found


def show(readings: list[Reading], found: dict[str, float]) -> None:
    """Prints the tables."""
    table = Table(title=f"{readings[0].docs:,} documents of about 500 bytes")
    for column in (
        "",
        "docs/s",
        "wall s",
        "CPU s client",
        *SERVERS,
        "peak MiB",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for reading in readings:
        cpu = [f"{reading.cpu_seconds.get(each, 0):.1f}" for each in ("client", *SERVERS)]
        wall = f"{reading.wall_seconds:.1f}"
        table.add_row(reading.name, f"{reading.rate:,.0f}", wall, *cpu, f"{reading.peak_mib:,.0f}")
    console = Console(width=120)
    console.print(table)
    for what, value in found.items():
        console.print(f"{value:8.2f}  {what}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=200_000)
    parser.add_argument("--json", type=Path, help="write the readings there, too")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-bench-")))
        folder.chmod(0o755)
        readings = Bench(arguments.docs, folder, stack).run()
    found = ratios(readings, os.cpu_count() or 1)
    show(readings, found)
    if arguments.json:
        arguments.json.write_text(json.dumps({"readings": [asdict(r) for r in readings], "ratios": found}))


if __name__ == "__main__":
    main()
