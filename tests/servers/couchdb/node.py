"""A node: its databases, settings and users, and the events that `_db_updates` tells."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import gevent

from tests.servers.couchdb.auth import Auth
from tests.servers.couchdb.config import Config
from tests.servers.couchdb.database import Database, new_uuid
from tests.servers.couchdb.documents import Edit
from tests.servers.couchdb.editing import edit_document
from tests.servers.couchdb.errors import NO_DATABASE, Refusal, bad_request, missing
from tests.servers.couchdb.failpoints import Failpoints

NAME = re.compile(r"[a-z][a-z0-9_$()+/-]*")
LONGEST_NAME = 238
SYSTEM_NAMES = ("_users", "_replicator", "_global_changes")
EVENTS = "_global_changes"
EVENT_DELAY_SECONDS = 0.5
ILLEGAL_NAME = (
    "Name: '{}'. Only lowercase characters (a-z), digits (0-9), and any of the characters _, $, (, ), +, -, "
    "and / are allowed. Must begin with a letter."
)


class Node:
    """A server's state.

    Args:
        folder: where its databases are; None keeps them in memory.
        admins: names and passwords of the administrators.
        shards: how many a database has whose creator does not say.
    """

    def __init__(self, folder: Path | None, admins: dict[str, str], *, shards: int = 2) -> None:
        self.uuid = _uuid(folder)
        self.config = Config()
        self.failpoints = Failpoints()
        self.shards = shards
        self.databases: dict[str, Database] = {}
        self._folder = folder
        self._events: dict[str, None] = {}
        if folder is not None:
            for path in sorted(folder.glob("*.couch")):
                database = Database.load(path)
                self.databases[database.name] = database
        for name in ("_replicator", "_users"):
            if name not in self.databases:
                self._create(name, q=shards)
        self.auth = Auth(admins, self.databases["_users"], self.config)

    def database(self, name: str) -> Database:
        """Return a database.

        Raises:
            Refusal: it is not there.
        """
        database = self.databases.get(name)
        if database is None:
            raise missing(NO_DATABASE)
        return database

    def create(self, name: str, *, q: int | None = None, partitioned: bool = False) -> Database:
        """Create a database.

        Raises:
            Refusal: its name is illegal or taken.
        """
        if not NAME.fullmatch(name) and name not in SYSTEM_NAMES:
            raise Refusal(400, "illegal_database_name", ILLEGAL_NAME.format(name))
        if len(name) > LONGEST_NAME:
            reason = f"At least one path segment of `{name}` is too long."
            raise Refusal(400, "database_name_too_long", reason)
        if name in self.databases:
            raise Refusal(412, "file_exists", "The database could not be created, the file already exists.")
        database = self._create(name, q=q or self.shards, partitioned=partitioned)
        self.tell("created", name)
        self.tell("updated", "_dbs")
        return database

    def delete(self, name: str) -> None:
        """Delete a database."""
        self.database(name).delete()
        del self.databases[name]
        self.tell("deleted", name)
        self.tell("updated", "_dbs")

    def tell(self, event: str, name: str) -> None:
        """Record an event, which `_db_updates` shows half a second later, once."""
        if name == EVENTS:
            return
        if not self._events:
            gevent.spawn_later(EVENT_DELAY_SECONDS, self._write_events)
        self._events[f"{event}:{name}"] = None

    def committed(self, database: Database) -> None:
        """Complete a request that wrote to a database."""
        database.commit()
        self.tell("updated", database.name)

    def _create(self, name: str, *, q: int, partitioned: bool = False) -> Database:
        path = self._folder / f"{quote(name, safe='')}.couch" if self._folder else None
        created = self.config.number("stand-in", "created", 0) or None  # as if all were made in one second
        database = Database(name, q=q, partitioned=partitioned, path=path, created=created)
        self.databases[name] = database
        return database

    def _write_events(self) -> None:
        events, self._events = self._events, {}
        database = self.databases.get(EVENTS)
        if database is None:
            return
        for doc_id in events:
            tree = database.tree(doc_id)
            path = [tree.winner.key] if tree else []
            edit_document(database, Edit(id=doc_id, path=path, body={}, text=b""), lambda *_: None)
        database.commit()


def _uuid(folder: Path | None) -> str:
    """Return the server's id, which stays the same as long as its folder."""
    if folder is None:
        return new_uuid()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "uuid"
    if not path.exists():
        path.write_text(new_uuid())
    return path.read_text()


def whole_number(text: str | None, name: str) -> int | None:
    """Return a parameter of a database's creation.

    Raises:
        Refusal: it is not a positive number.
    """
    if text is None:
        return None
    if not text.isdigit() or int(text) < 1:
        raise bad_request(f"The `{name}` value should be a positive integer.")
    return int(text)
