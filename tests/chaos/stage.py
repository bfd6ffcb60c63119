"""The servers of a run, the daemon, and a proxy on every connection between them."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import requests

from tests.acceptance import stores
from tests.acceptance.process import ROOT, Pillowd
from tests.acceptance.stores import Rows
from tests.acceptance.world import statuses
from tests.chaos.disk import mount_small_disk, unmount
from tests.chaos.lines import Line, State
from tests.chaos.truth import MAPPING
from tests.chaos.writer import AT_ONCE, Writer, create_database
from tests.servers.couchdb.process import CouchDB
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.postgres import Postgres

#: The settings that bound how much is written again after a kill.
MAX_UNCHECKPOINTED, MAX_DOCS, PAGE, QUEUE_BYTES, INTERVAL = 50, 50, 100, 16_384, 100
#: Changes acknowledged but not saved, up to a row with a position, and the batch in flight.
REPLAY_BOUND = MAX_UNCHECKPOINTED + INTERVAL + MAX_DOCS

#: Longest drain. Giving up takes a moment more: ten seconds in all.
SHUTDOWN_SECONDS = 8

#: Longest start. It takes a second or two, but more while twenty other processes start.
READY_SECONDS = 240.0

_TRANSFORM = """
def rows(document):
    if document.get("poison"):
        raise ValueError("poison")
    return document
"""


class Daemon(Pillowd):
    """The real process, or that process with the changes of `tests.chaos.shim`."""

    program: Sequence[str] = (sys.executable, str(ROOT / "pillowd.py"))
    shim = (sys.executable, "-m", "tests.chaos.shim")


class Stage:
    """The servers, proxies, writers and daemon of a run; a context manager.

    Args:
        folder: an empty folder.
        seed: of the writers.
        couch, postgres, elasticsearch: running servers, for this run alone.
        documents: most documents in the large database.
        mutant: name of a planted bug.
        at_once, pause_seconds, purges: see `Writer`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        couch: CouchDB,
        postgres: Postgres,
        elasticsearch: Elasticsearch,
        documents: int,
        mutant: str = "",
        at_once: int = AT_ONCE,
        pause_seconds: float = 0.3,
        purges: bool = True,
    ) -> None:
        self.folder = folder
        self.couch, self.postgres, self.elasticsearch = couch, postgres, elasticsearch
        self.mutant = mutant
        self.log_from = self.log_read = self._starts = 0
        # On one disk, since the shim keeps replaced files by hard links.
        self.disk_path = folder / "disk"
        self.state_path, self.undo_path = self.disk_path / "state", self.disk_path / "undo"
        self.small_disk = False
        self.lines = {
            "couch": Line(couch.address),
            "couch alone": Line(couch.address),
            "postgres": Line(postgres.address),
            "postgres alone": Line(postgres.address),
            "elasticsearch": Line(elasticsearch.address),
        }
        self.sqlite_path = folder / "target.sqlite"
        self.writers = {
            "all": Writer(
                create_database(couch, "all"),
                seed,
                most=documents,
                at_once=at_once,
                pause_seconds=pause_seconds,
                purges=purges,
            ),
            "again": Writer(
                create_database(couch, "again"), seed + 1, most=60, batch=4, pause_seconds=1.0, purges=purges
            ),
        }
        self.index = f"chaos-{uuid.uuid4().hex[:8]}"
        self._database = f"chaos_{uuid.uuid4().hex[:8]}"
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        with psycopg.connect(self.postgres.dsn, autocommit=True) as admin:
            admin.execute(f"create database {self._database} template template0")
        for line in self.lines.values():
            self._stack.enter_context(line)
        self.disk_path.mkdir()
        if mount_small_disk(self.disk_path):
            self.small_disk = True
            self._stack.callback(unmount, self.disk_path)
        (self.folder / "chaosrows.py").write_text(_TRANSFORM)
        self.daemon = self._stack.enter_context(self._make_daemon())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for writer in self.writers.values():
            writer.close()

    def dsn(self, line: str = "") -> str:
        """Return the dsn of the database, through a line if one is named."""
        dsn = self.postgres.dsn_of(self._database)
        if not line:
            return dsn
        return dsn.replace(f":{self.postgres.port}/", f":{self.lines[line].port}/")

    # --- the daemon

    def start(self, environ: Mapping[str, str], *, forgetful: bool = False, counting: bool = False) -> None:
        """Start the daemon; it may die before it is ready.

        Every other start, and each start with an option below, goes through `tests.chaos.shim`.

        Args:
            environ: variables to add to the environment.
            forgetful: whether to record unsynced writes for `power_off`.
            counting: whether to count greenlets.
        """
        more = {"PYTHONPATH": str(ROOT), "CHAOS_MUTANT": self.mutant}
        if forgetful:
            more["CHAOS_UNDO"] = str(self.undo_path)
        if counting:
            more["CHAOS_GREENLETS"] = str(self.folder / "greenlets")
        self._starts += 1
        shimmed = self.mutant or forgetful or counting or self._starts % 2
        self.daemon.program = self.daemon.shim if shimmed else Daemon.program
        self.daemon.start(environ=more | dict(environ), ready=False)

    def wait_until_ready(self, *, seconds: float = READY_SECONDS) -> bool:
        """Wait until the daemon is ready or dead; return whether it is ready. Before, SIGTERM kills it."""
        before = time.monotonic()
        while time.monotonic() - before < seconds and self.daemon.child.poll() is None:
            if statuses(self.daemon):
                return True
            time.sleep(0.05)
        return False

    def kill(self) -> None:
        self.daemon.signal(signal.SIGCONT)
        self.daemon.signal(signal.SIGKILL)
        self.daemon.child.wait()

    def is_writing(self) -> bool:
        """Return whether the daemon has begun to write."""
        return self.lines["elasticsearch"].count(b"/_bulk", "to_server") > 0

    def get_greenlet_count(self) -> int:
        """Return the number of greenlets of a daemon that counts them."""
        file = self.folder / "greenlets"
        return int(file.read_text() or 0) if file.exists() else 0

    def describe_states(self) -> list[str]:
        return [f"{name}: {one['state']} {one['reason']}" for name, one in statuses(self.daemon).items()]

    def read_states(self) -> set[str]:
        """Return the states that the pillows report."""
        return {one["state"] for one in statuses(self.daemon).values()}

    # --- targets

    def read_targets(self) -> dict[str, dict[str, Rows]]:
        """Return database -> target -> its rows."""
        return {
            "all": {
                "postgres": self._read_table("everything"),
                "elasticsearch": stores.elasticsearch(self.elasticsearch.url, self.index),
                "sqlite": stores.sqlite(self.sqlite_path, "everything"),
                "postgres alone": self._read_table("alone"),
            },
            "again": {"postgres again": self._read_table("again")},
        }

    def is_visible(self, ids: Mapping[str, str]) -> bool:
        """Return whether one document of each database is in all of that database's targets.

        Args:
            ids: database -> the document's id.
        """
        tables = {"everything": ids["all"], "alone": ids["all"], "again": ids["again"]}
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            for table, id in tables.items():
                if connection.execute(f"select 1 from {table} where _id = %s", [id]).fetchone() is None:
                    return False
        with closing(sqlite3.connect(self.sqlite_path)) as db:
            if db.execute("select 1 from everything where _id = ?", [ids["all"]]).fetchone() is None:
                return False
        requests.post(f"{self.elasticsearch.url}/{self.index}/_refresh", timeout=60).raise_for_status()
        url = f"{self.elasticsearch.url}/{self.index}/_count"
        answer = requests.post(url, json={"query": {"ids": {"values": [ids["all"]]}}}, timeout=60)
        return bool(answer.json()["count"] == 1)

    def _read_table(self, name: str) -> Rows:
        rows = stores.postgres(self.dsn(), name)
        return {id: row._replace(body=to_original(row.body)) for id, row in rows.items()}

    def take_written(self) -> dict[str, set[State]]:
        """Return line -> the states that were sent to a target since the last call.

        Purged documents and dead letters are left out: both are rightly sent again.
        """
        found = {
            name: line.find_written() for name, line in self.lines.items() if not name.startswith("couch")
        }
        for line in self.lines.values():
            line.forget()
        truths = [writer.truth for writer in self.writers.values()]
        again = set().union(*(truth.bad for truth in truths))
        purged = set().union(*(truth.purged for truth in truths))
        return {
            name: {state for state in states - again if state[0] not in purged}
            for name, states in found.items()
        }

    def heal(self) -> None:
        """End every fault on the lines."""
        for line in self.lines.values():
            line.heal()

    # --- configuration

    def _make_daemon(self) -> Daemon:
        user, password = self.couch.auth or ("", "")
        auth = {"type": "session", "username": user, "password": password}
        couch = {"type": "couchdb", "auth": auth, "fetches": 1}
        connections: dict[str, Any] = {
            "couch": couch | {"url": self.lines["couch"].url},
            "couch-alone": couch | {"url": self.lines["couch alone"].url},
            "postgres": {"type": "postgres", "dsn": self.dsn("postgres")},
            "postgres-alone": {"type": "postgres", "dsn": self.dsn("postgres alone")},
            "elasticsearch": {"type": "elasticsearch", "hosts": [self.lines["elasticsearch"].url]},
            "sqlite": {"type": "sqlite", "path": str(self.sqlite_path)},
        }
        index = {"connection": "elasticsearch", "index": self.index, "mapping": MAPPING}
        pillows = {
            "all": self._make_pillow(
                "all",
                {"connection": "couch"},
                [
                    {"connection": "postgres", "table": "everything"},
                    index,
                    {"connection": "sqlite", "table": "everything"},
                ],
            ),
            "alone": self._make_pillow(
                "all",
                {"connection": "couch-alone", "documents": "bulk_get"},
                [{"connection": "postgres-alone", "table": "alone"}],
            ),
            "again": self._make_pillow(
                "again",
                {"connection": "couch-alone", "on_recreated": "reload"},
                [{"connection": "postgres-alone", "table": "again"}],
            ),
        }
        settings = {
            "state_dir": str(self.state_path),
            "plugins_path": [str(self.folder)],
            "shutdown_timeout": f"{SHUTDOWN_SECONDS}s",
        }
        sections = {"checkpoints": {"interval": "1s", "max_uncheckpointed": MAX_UNCHECKPOINTED}}
        return Daemon(
            self.folder, pillows=pillows, connections=connections, daemon=settings, sections=sections
        )

    def _make_pillow(
        self, database: str, source: Mapping[str, Any], transport: Sequence[Any]
    ) -> dict[str, Any]:
        queue = {"page": PAGE, "queue": f"{QUEUE_BYTES // 1024}KiB"}
        name = self.writers[database].database.name
        return {
            "source": {"database": name, **queue, **source},
            "transform": {"python": "chaosrows:rows"},
            "transport": list(transport),
            "batch": {"max_docs": MAX_DOCS},
        }


def to_original(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document as it was before PostgreSQL stored it; see `pillows.transports.postgres.encoder`."""
    if "nul" not in body:
        return body
    return {**body, "nul": body["nul"].replace("\x010", "\x00").replace("\x011", "\x01")}


def find_faketime() -> Path | None:
    """Return the library of Debian's package `faketime`, which moves a process's clock; None if absent."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def make_clock_environ(offset: str, file: Path) -> dict[str, str]:
    """Return the environment of a process whose clock a test moves."""
    file.write_text(offset)
    return {
        "LD_PRELOAD": str(find_faketime()),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "PATH": os.environ["PATH"],
    }
