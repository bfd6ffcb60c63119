"""Many databases of one server, and a pillow that reads them, in this process."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gevent
import requests
from gevent.event import Event

from checkpoints import CheckpointStore, TailKey
from daemon.assembly.services import Services
from daemon.assembly.tails import build_tails
from daemon.config.load import load
from pillows.clock import Clock, SystemClock
from pillows.databases.databases_tail import DatabasesTail
from pillows.dead_letters.store import DeadLetters
from pillows.feed.shared.pool import FeedPool
from pillows.observer import Observer
from pillows.runtime.status import State
from tests.servers.couch_client import CouchDatabase
from tests.support.waiting import wait_until


class Databases:
    """The databases of a server whose names begin alike.

    Args:
        server: of the tests, with `url` and `auth`.
        prefix: what their names begin with.
    """

    def __init__(self, server: Any, prefix: str) -> None:
        self.server = server
        self.prefix = prefix
        self._clients: dict[str, CouchDatabase] = {}

    def __getitem__(self, name: str) -> CouchDatabase:
        """Return the client of a database, given the rest of its name."""
        return self.client(f"{self.prefix}{name}")

    def client(self, name: str) -> CouchDatabase:
        """Return the client of a database, given its whole name."""
        if name not in self._clients:
            self._clients[name] = CouchDatabase(self.server.url, name, auth=self.server.auth)
            self._clients[name].session = self._session()
        return self._clients[name]

    def create(self, name: str, documents: int = 0, **fields: Any) -> CouchDatabase:
        """Create a database with documents."""
        database = self[name].create()
        if documents:
            database.fill(documents, **fields)
        return database

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return every document of all databases by its key."""
        return {
            f"{name}:{id}": document
            for name in self.names()
            for id, document in self.client(name).documents().items()
        }

    def names(self) -> list[str]:
        """Return the names of the databases that exist."""
        found = self._session().get(
            f"{self.server.url}/_all_dbs",
            params={"startkey": f'"{self.prefix}"', "endkey": f'"{self.prefix}\ufff0"'},
            timeout=60,
        )
        names: list[str] = found.json()
        return names

    def drop(self) -> None:
        """Drop them all."""
        for name in self.names():
            self.client(name).drop()

    def _session(self) -> requests.Session:
        for client in self._clients.values():
            return client.session
        session = requests.Session()
        session.auth = self.server.auth
        return session


class RunningDatabases:
    """A pillow on several databases that runs in a greenlet from now on.

    Args:
        config: its configuration, as YAML; the pillow is `users`.
        folder: of its state.
        clock: for every duration and wait.
        observer: receives everything that happens.
    """

    def __init__(
        self, config: str, folder: Path, *, clock: Clock | None = None, observer: Observer | None = None
    ) -> None:
        clock, observer = clock or SystemClock(), observer or Observer()
        self.store = CheckpointStore(folder / "checkpoints")
        self.letters = DeadLetters(folder / "dead-letters", clock=clock)
        self.feeds = FeedPool(clock=clock, observer=observer)
        self.paused: set[TailKey] = set()
        path = folder / "pillowd.yaml"
        path.write_text(config)
        self.config = load(path, {})
        services = Services(
            store=self.store,
            dead_letters=self.letters,
            clock=clock,
            observer=observer,
            feeds=self.feeds,
            is_paused=self.paused.__contains__,
        )
        ((self.key, factory),) = build_tails(self.config, services).items()
        tail = factory()
        assert isinstance(tail, DatabasesTail)
        self.tail = tail
        self.stop = Event()
        self.greenlet = gevent.spawn(tail.run, self.stop)

    def until(self, condition: Any, seconds: float = 60.0) -> None:
        """Wait until the condition is true. What ended the tail is raised."""
        wait_until(condition, seconds=seconds, worker=self.greenlet, explain=self.tail.status)

    def until_parked(self, count: int | None = None, seconds: float = 60.0) -> None:
        """Wait until `count` databases are parked; all of them if None."""
        self.until(lambda: self.is_parked(count), seconds)

    def is_parked(self, count: int | None = None) -> bool:
        """Return whether all, or `count`, databases are parked, and the sweep is done."""
        status = self.tail.status()
        counts = dict(status.databases or {})
        parked = counts.pop("parked", 0)
        counts.pop("deleted", 0)
        return status.state is State.LIVE and not counts and (count is None or parked == count)

    def states(self) -> Mapping[str, int]:
        """Return how many databases are in each state."""
        return self.tail.status().databases or {}

    def finish(self) -> None:
        """Stop it, and close its stores."""
        self.stop.set()
        try:
            self.greenlet.get(timeout=60)
        finally:
            self.close()

    def kill(self) -> None:
        """Kill it at any point."""
        self.greenlet.kill()
        self.close()

    def close(self) -> None:
        """Close its stores and connections."""
        self.feeds.close()
        self.store.close()
        self.letters.close()


@contextmanager
def running(
    config: str, folder: Path, *, ends_by_kill: bool = False, **options: Any
) -> Iterator[RunningDatabases]:
    """Run a pillow, and stop or kill it at the end."""
    pillow = RunningDatabases(config, folder, **options)
    try:
        yield pillow
    except BaseException:
        pillow.kill()
        raise
    if ends_by_kill:
        pillow.kill()
    else:
        pillow.finish()


def make_config(databases: Databases, target: str, output: str, *, source: str = "", more: str = "") -> str:
    """Return a configuration for all databases with a prefix.

    Args:
        databases: the databases.
        target: the settings of the target's connection.
        output: those of its output.
        source: further settings of the source.
        more: further lines of the pillow, indented by four blanks.
    """
    server = databases.server
    auth = ""
    if server.auth:
        auth = f', auth: {{ type: basic, username: "{server.auth[0]}", password: "{server.auth[1]}" }}'
    return f"""\
version: 1
connections:
  couch: {{ type: couchdb, url: "{server.url}"{auth} }}
  target: {{ {target} }}
pillows:
  users:
    source: {{ connection: couch, databases: "{databases.prefix}*"{source} }}
    transport:
      - {{ connection: target, {output} }}
{more}"""


def read_sqlite(path: Path, table: str = "docs", column: str = "doc") -> dict[str, Any]:
    """Return key -> document, or another column, of a table."""
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute(f'SELECT _id, "{column}" FROM "{table}"'))
