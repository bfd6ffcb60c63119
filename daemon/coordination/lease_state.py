"""The state of a service in the lease database, written by the session that holds the lease."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import psycopg

from checkpoints import StoreError, StoreWriteError
from checkpoints.replica import Key
from daemon.coordination import tables
from daemon.coordination.session import LeaseSession
from pillows.errors import PillowError

#: Most entries and bytes of one statement, so that it stays well within `CALL_SECONDS`.
_CHUNK = 500
_CHUNK_BYTES = 2**20

_Entries = Mapping[Key, bytes | None]


class LeaseState:
    """The shared state of a service; see `SharedState`.

    Args:
        session: the session that holds the lease.
        service: the service's name.
        is_filled: whether a daemon has copied its state there.
    """

    def __init__(self, session: LeaseSession, service: str, *, is_filled: bool) -> None:
        self._session = session
        self.service = service
        self.is_filled = is_filled
        self._is_cleared = is_filled

    def open_replica(self, store: str) -> LeaseReplica:
        """Return the copy of one store."""
        if not self._is_cleared:  # a daemon that put its state there may have ended half way
            _write(self._session, tables.CLEAR, {"service": self.service})
            self._is_cleared = True
        return LeaseReplica(self._session, self.service, store, is_filled=self.is_filled)

    def set_filled(self) -> None:
        """Note durably that every store was copied there; see `SharedState.set_filled`."""
        _write(self._session, tables.SET_FILLED, {"service": self.service})
        self.is_filled = True


class LeaseReplica:
    """The copy of one store in the lease database; see `Replica`."""

    def __init__(self, session: LeaseSession, service: str, store: str, *, is_filled: bool) -> None:
        self._session = session
        self._names = {"service": service, "store": store}
        self._is_filled = is_filled

    def read(self) -> Mapping[Key, bytes] | None:
        """Return all entries; see `Replica.read`."""
        if not self._is_filled:
            return None
        found: dict[Key, bytes] = {}
        after = ""
        while rows := self._read_page(after):
            found |= {tuple(json.loads(key)): value.encode() for _, key, value in rows}
            after = rows[-1][0]
        return found

    def _read_page(self, after: str) -> Sequence[tuple[str, str, str]]:
        names = {**self._names, "after": after, "limit": _CHUNK}
        try:
            return self._session.run(lambda cursor: cursor.execute(tables.READ.encode(), names).fetchall())
        except PillowError as error:
            raise StoreError(f"the state in the lease database cannot be read: {error}") from error

    def write(self, entries: _Entries) -> None:
        """Store entries; see `Replica.write`."""
        for chunk in _cut(entries):
            with _translating():
                self._session.run(partial(self._put, chunk))

    def _put(self, entries: _Entries, cursor: psycopg.Cursor) -> None:
        gone = [_to_id(key) for key, value in entries.items() if value is None]
        kept = {key: value for key, value in entries.items() if value is not None}
        if gone:
            cursor.execute(tables.DELETE.encode(), {**self._names, "ids": gone})
        if kept:
            texts = {
                "ids": [_to_id(key) for key in kept],
                "keys": [json.dumps(key) for key in kept],
                "values": [value.decode() for value in kept.values()],
            }
            cursor.execute(tables.PUT.encode(), {**self._names, **texts})
        cursor.execute(tables.HEARTBEAT.encode(), self._names)


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except PillowError as error:
        raise StoreWriteError(f"the state in the lease database cannot be written: {error}") from error


def _write(session: LeaseSession, statement: str, names: Mapping[str, str]) -> None:
    with _translating():
        session.run(lambda cursor: cursor.execute(statement.encode(), names))


def _cut(entries: _Entries) -> Iterator[_Entries]:
    chunk: dict[Key, bytes | None] = {}
    size_bytes = 0
    for key, value in entries.items():
        if len(chunk) >= _CHUNK or size_bytes >= _CHUNK_BYTES:
            yield chunk
            chunk, size_bytes = {}, 0
        chunk[key] = value
        size_bytes += len(value or b"")
    if chunk:
        yield chunk


def _to_id(key: Key) -> str:
    """Return a short id for a key: an index of PostgreSQL cannot hold a text of 4 kB."""
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()
