"""The servers that participants make work: CouchDB with the documents, and targets, empty for each run."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests

from bench import corpus
from bench.meter import Reading, measure
from checkpoints import StoreError
from daemon.http.client import HttpClient
from docs.measured import ROOT
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.opensearch import OpenSearch
from tests.servers.postgres import Postgres
from tests.servers.source import Source, source

FEED = "_changes?style=all_docs&seq_interval=100&include_docs=true"
DATABASE = "pillowd_bench"
URL, PID = "PILLOWD_BENCH_COUCHDB_URL", "PILLOWD_BENCH_COUCHDB_PID"

HEAD = """
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
"""
CONFIG = f"""{HEAD}\
    source: {{{{ connection: couch, database: {{database}}, documents: {{documents}} }}}}
    load: {{{{ workers: {{workers}} }}}}
    transport: [{{{{ connection: target, {{output}} }}}}]
"""
POLL_SECONDS = 0.1


class Pillowd:
    """A daemon with one pillow, and how to know that it has caught up.

    Args:
        folder: with its configuration, and its state.
    """

    def __init__(self, folder: Path) -> None:
        self.command = [
            *(sys.executable, "-m", "daemon", "run", "--all", "--config", str(folder / "pillowd.yaml"))
        ]
        self._client = HttpClient(folder / "admin.sock")

    def wait_live(self, process: subprocess.Popen[bytes], *, changes: int = 0) -> None:
        """Return when its pillow is live and has seen so many changes.

        Raises:
            SystemExit: it has ended.
        """
        self.wait(process, lambda tail: tail["state"] == "live" and tail["changes"] >= changes)

    def wait(
        self,
        process: subprocess.Popen[bytes],
        is_so: Callable[[Mapping[str, Any]], bool],
        *,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Return when the status of its pillow is as wanted.

        Raises:
            SystemExit: it has ended.
        """
        while process.poll() is None:
            time.sleep(poll_seconds)
            try:
                (tail,) = self._client.call("list_pillows")["pillows"]
            except StoreError:
                continue  # it is still starting
            if is_so(tail):
                return
        raise SystemExit(f"pillowd ended with {process.returncode}")


class Servers:
    """CouchDB and targets, and how a participant is measured on them.

    Args:
        docs: how many documents the database holds.
        folder: for the servers' data and whatever a participant needs.
        stack: stops the servers.
        search: start Elasticsearch and OpenSearch, too.
    """

    def __init__(self, docs: int, folder: Path, stack: ExitStack, *, search: bool) -> None:
        self.docs = docs
        self.folder = folder
        self.pids: dict[str, int] = {}
        self.couch = self._start_couch(stack)
        self.database = replace(self.couch, url=f"{self.couch.url}/{DATABASE}")
        self.postgres = stack.enter_context(Postgres(data_dir=folder / "postgres"))
        self.pids["postgres"] = self.postgres.pid or 0
        self.urls: dict[str, str] = {}
        for kind in (Elasticsearch, OpenSearch) if search else ():
            node = stack.enter_context(kind(data_dir=folder / kind.name))
            self.urls[kind.name] = node.url
            self.pids[kind.name] = node.pid or 0
        self.curlrc = folder / "curlrc"
        self.curlrc.touch(mode=0o600)
        self.curlrc.write_text(self.couch.curl)

    def _start_couch(self, stack: ExitStack) -> Source:
        if url := os.environ.get(URL):
            self.pids |= find_pid(os.environ)
            return source(url)
        server = stack.enter_context(CouchDB(data_dir=self.folder / "couchdb"))
        self.pids["couchdb"] = server.pid or 0
        return Source(url=server.url, auth=server.auth)

    def describe(self) -> str:
        """Return which servers these are: a CouchDB of the tests is no Apache CouchDB."""
        with psycopg.connect(self.postgres.dsn) as connection:
            postgres = connection.info.server_version // 10_000
        if URL not in os.environ:
            return f"The tests' own CouchDB server (no Apache CouchDB), PostgreSQL {postgres} without fsync"
        answered = requests.get(self.couch.url, headers=self.couch.headers, timeout=60).json()
        return f"CouchDB {answered.get('version')}, PostgreSQL {postgres} without fsync"

    def load(self) -> Path:
        """Put the documents into the database, and read them once; return a file with the feed."""
        compile_modules()
        corpus.load(self.database, self.docs)
        recorded = self.folder / "changes.json"
        subprocess.run(self.curl_command(recorded), check=True)
        return recorded

    def curl_command(self, file: Path) -> list[str]:
        """Return the command that reads the whole feed with its documents into a file."""
        url = f"{self.database.url}/{FEED}"
        return ["curl", "--config", str(self.curlrc), "-sSf", "-o", str(file), url]

    def measure(
        self,
        name: str,
        command: Sequence[str],
        *,
        done: Callable[[subprocess.Popen[bytes]], None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Reading:
        """Run a participant to its end, or until `done` returns; return what it took."""
        environ = {**self.couch.environ, **(env or {})}
        return measure(name, self.docs, command, self.pids, done=done, env=environ)

    def measure_module(self, name: str, module: str, *arguments: str) -> Reading:
        """Run a participant that is a module of ours."""
        return self.measure(name, [sys.executable, "-m", module, *arguments])

    def measure_pillowd(
        self, name: str, target: str, output: str, *, workers: int = 0, documents: str = "auto"
    ) -> Reading:
        """Run pillowd from its start until it is live and has carried all documents."""
        pillowd = self._configure(target, output, DATABASE, workers=workers, documents=documents)

        def wait(process: subprocess.Popen[bytes]) -> None:
            pillowd.wait_live(process, changes=self.docs)

        return self.measure(name, pillowd.command, done=wait)

    @contextmanager
    def running_pillowd(self, target: str, output: str, *, database: str) -> Iterator[None]:
        """Run pillowd on a database, from when it is live on."""
        pillowd = self._configure(target, output, database)
        with subprocess.Popen(pillowd.command, env=os.environ | self.couch.environ) as process:
            try:
                pillowd.wait_live(process)
                yield
            finally:
                process.terminate()

    def _configure(
        self, target: str, output: str, database: str, *, workers: int = 0, documents: str = "auto"
    ) -> Pillowd:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        config = folder / "pillowd.yaml"
        config.touch(mode=0o600)
        config.write_text(
            CONFIG.format(
                folder=folder,
                couch=self.couch.settings,
                database=database,
                documents=documents,
                workers=workers,
                target=target,
                output=output,
            )
        )
        return Pillowd(folder)

    @contextmanager
    def empty_postgres(self) -> Iterator[str]:
        """Yield the DSN of an empty database, which is dropped afterwards."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self.postgres.dsn, autocommit=True) as admin:
            admin.execute(f"create database {name}")
            admin.execute("checkpoint")  # what others have written is no part of this run
            try:
                yield self.postgres.dsn_of(name)
            finally:
                admin.execute(f"drop database {name} with (force)")

    @contextmanager
    def empty_index(self, server: str) -> Iterator[tuple[str, str]]:
        """Yield a search server's URL and the name of a new index, which is deleted afterwards."""
        url, name = self.urls[server], f"bench-{uuid.uuid4().hex[:8]}"
        try:
            yield url, name
        finally:
            listed = requests.get(f"{url}/_cat/indices/{name}*?h=index", timeout=60)
            for index in listed.text.split():
                requests.delete(f"{url}/{index}", timeout=60).raise_for_status()

    def check_table(self, dsn: str, table: str) -> None:
        """Check that a participant has written all documents.

        Raises:
            SystemExit: it has not, so that its reading is worth nothing.
        """
        with psycopg.connect(dsn) as connection:
            counted = connection.execute(f'select count(*) from "{table}"').fetchall()
        self._check(counted[0][0], table)

    def check_index(self, url: str, index: str) -> None:
        """Check the same in a search server."""
        requests.post(f"{url}/{index}/_refresh", timeout=60).raise_for_status()
        self._check(requests.get(f"{url}/{index}/_count", timeout=60).json()["count"], index)

    def _check(self, counted: int, where: str) -> None:
        if counted != self.docs:
            raise SystemExit(f"{where} holds {counted:,} documents instead of {self.docs:,}")


def compile_modules() -> None:
    """Compile our modules, as pip does when it installs them.

    With PYTHONDONTWRITEBYTECODE, as in containers, every start from a checkout compiles them again: 1 s.
    """
    for package in ("checkpoints", "pillows", "daemon", "bench"):
        compileall.compile_dir(ROOT / package, quiet=1)


def find_pid(environ: Mapping[str, str]) -> dict[str, int]:
    """Return the process of a CouchDB that others have started, as `PILLOWD_BENCH_COUCHDB_PID` names it.

    Raises:
        SystemExit: no such process runs on this machine.
    """
    given = environ.get(PID)
    if not given:
        return {}
    if not given.isdigit() or not psutil.pid_exists(int(given)):
        raise SystemExit(f"{PID}={given}: no such process runs here. Remedy: name that of CouchDB (beam.smp)")
    return {"couchdb": int(given)}
