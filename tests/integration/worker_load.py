"""A pillow of a configuration that loads a database with worker processes, in this process."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import gevent
import psutil
from gevent.event import Event

from checkpoints import Checkpoint
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config.load import load
from daemon.state_dir import open_state_dir
from pillows.clock import SystemClock
from pillows.runtime.status import State
from pillows.runtime.tail import Tail
from tests.servers.couch_client import CouchDatabase
from tests.support.recorder import Recorder
from tests.support.sizes import size
from tests.support.waiting import wait_until

#: The documents d000000, d000001 ..., each with its number.
DOCUMENTS = size(ci=1_500, proof=200_000)

FUNCTIONS = """
    import os, signal, time

    def rows(doc):
        return {"n": doc["n"], "pid": os.getpid()}

    def many(docs):
        return [rows(doc) for doc in docs]

    def crash(doc):
        if doc["n"] == 77:
            os.kill(os.getpid(), signal.SIGSEGV)
        return rows(doc)

    def devour(doc):
        return rows(doc) if doc["n"] != 77 else {"n": len([b"x" * 2**20 for _ in range(2**16)])}

    def refuse(doc):
        if doc["n"] == 77:
            raise ValueError("no 77")
        return rows(doc)

    def slow(doc):
        time.sleep(0.002)
        return rows(doc)
"""


class Load:
    """One pillow into SQLite, run in this process.

    Attributes:
        recorder: everything that was observed.
        tail: the tail that runs.
    """

    def __init__(
        self,
        folder: Path,
        couch: CouchDatabase,
        pillow: str,
        *,
        documents: str = "bulk_get",
        change_code: bool = False,
    ) -> None:
        (folder / "plugins").mkdir(exist_ok=True)
        self.module = f"worker_functions_{os.getpid()}_{abs(hash(str(folder)))}"
        self.code = folder / "plugins" / f"{self.module}.py"
        self.code.write_text(dedent(FUNCTIONS))
        self.path = folder / "copy.sqlite"
        auth = couch.auth
        login = f", auth: {{ type: basic, username: {auth[0]}, password: '{auth[1]}' }}" if auth else ""
        text = f"""
            version: 1
            daemon: {{ state_dir: {folder}/state, plugins_path: [{folder}/plugins] }}
            connections:
              couch: {{ type: couchdb, url: "{couch.server_url}"{login} }}
              copy: {{ type: sqlite, path: {self.path} }}
            pillows:
              cases:
                source: {{ connection: couch, database: "{couch.name}", documents: {documents} }}
                transport: [{{ connection: copy, table: cases, columns: {{ n: n int, pid: pid int }} }}]
                errors: {{ exception_text: true }}
        """
        more = dedent(pillow).replace("FUNCTIONS", self.module).replace("\n", "\n    ")
        (folder / "pillowd.yaml").write_text(dedent(text).rstrip() + "\n" + "    " + more.strip() + "\n")
        self.config = load(folder / "pillowd.yaml")
        self.recorder = Recorder()
        self.stop = Event()
        clock = SystemClock()
        self.state = open_state_dir(self.config.daemon.state_dir, clock)
        self._opened = self.state.__enter__()
        self.services = Services(
            store=self._opened.store,
            dead_letters=self._opened.dead_letters,
            clock=clock,
            observer=self.recorder,
        )
        ((self.key, self._factory),) = build_tails(self.config, self.services).items()
        if change_code:
            self.code.write_text(self.code.read_text() + "x = 1\n")
        tail = self._factory()
        assert isinstance(tail, Tail)
        self.tail: Tail = tail
        self.greenlet = gevent.spawn(self.tail.run, self.stop)

    def until(self, condition: Callable[[], Any], seconds: float = size(ci=120.0, proof=1500.0)) -> None:
        wait_until(condition, worker=self.greenlet, seconds=seconds)

    def until_live(self) -> None:
        self.until(lambda: self.tail.state is State.LIVE)

    def finish(self) -> Checkpoint | None:
        self.stop.set()
        self.greenlet.get(timeout=60)
        return self.services.store.get(self.key)

    def close(self) -> None:
        self.greenlet.kill()
        self.state.__exit__(None, None, None)

    @property
    def rows(self) -> dict[str, tuple[int, int]]:
        """Id -> number and process."""
        with closing(sqlite3.connect(self.path)) as db, suppress(sqlite3.OperationalError):
            return {id: (n, pid) for id, n, pid in db.execute("SELECT _id, n, pid FROM cases")}
        return {}  # no table yet

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers that run now."""
        found = []
        for each in psutil.Process().children():
            with suppress(psutil.Error):  # it has ended meanwhile
                if "daemon.workers" in each.cmdline():
                    found.append(each.pid)
        return found

    @property
    def numbers(self) -> dict[str, int]:
        """Id -> number, of the rows."""
        return {id: n for id, (n, _) in self.rows.items()}
