"""Decide which database is read next: a queue of those with changes, their states and back-off. Pure.

A database is in the queue at most once; the queue is ordered by the time at which databases became dirty. A
database that is marked during its turn is queued again after it, so no mark is lost. One that is paused
during its turn stays paused, however the turn ends.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from pillows.databases.listing import DIGEST_BYTES, Description

#: Wait after the first failure of a database. It doubles with each further failure, up to a maximum.
FIRST_WAIT_SECONDS = 30.0
LONGEST_WAIT_SECONDS = 3600.0

#: A database counts as deleted if two answers this far apart say that it does not exist: a node that starts,
#: or lacks a shard, says so as well.
MISSING_SECONDS = 60.0

#: Digests that are kept for each database: each node of a cluster describes the same state differently.
PROOFS = 4

#: No copy of a database lags behind the others for longer than this (as `join_overlap`). A description may
#: come from one copy and the changes from another one, so a proof counts for good only if a turn that began
#: this long after it has reached the head, too.
COPY_LAG_SECONDS = 60.0


class DatabaseState(StrEnum):
    """The state of one database of a pillow. Commands and the API show these values."""

    PARKED = "parked"
    QUEUED = "queued"
    ACTIVE = "active"
    BACKING_OFF = "backing-off"
    FAILED = "failed"
    PAUSED = "paused"
    DELETED = "deleted"


class Database(msgspec.Struct, gc=False):
    """The state of one database in memory. It is small: there may be ten thousand.

    Attributes:
        state: its state.
        reason: the reason for the state, if it has one.
        dirty_since: monotonic seconds since when changes may wait; None if none do.
        failures: failed turns in a row.
        retry_at: monotonic seconds of the next turn after a failure.
        missing_since: monotonic seconds of the first answer that said it does not exist; None if it exists.
        seen: digest of its description in the last sweep; empty before the first. See `listing.Description`.
        identity: creation time and purges in that description; empty if they may have changed since.
        proving: the digest that becomes a proof if the running turn reaches the head.
        proofs: digests of descriptions, one after the other. A database with one of them has no changes after
            the checkpoint.
        was_deleted: whether `_db_updates` reported a deletion, and no turn has ended since.
        has_copies: whether the server keeps several copies of it, of which some may lag.
        confirm_at: monotonic seconds from which a turn confirms the proofs; 0 if they are confirmed.
    """

    state: DatabaseState = DatabaseState.PARKED
    reason: str = ""
    dirty_since: float | None = None
    failures: int = 0
    retry_at: float = 0.0
    missing_since: float | None = None
    seen: bytes = b""
    identity: str = ""
    proving: bytes = b""
    proofs: bytes = b""
    was_deleted: bool = False
    has_copies: bool = False
    confirm_at: float = 0.0

    def is_proof(self, digest: bytes) -> bool:
        """Return whether nothing follows the checkpoint if the database's description has this digest."""
        size = DIGEST_BYTES
        return any(self.proofs[at : at + size] == digest for at in range(0, len(self.proofs), size))


class TurnQueue:
    """The databases of one pillow, and the order of their turns.

    Attributes:
        counts: how many databases are in each state.
    """

    def __init__(self) -> None:
        self.counts: Counter[DatabaseState] = Counter()
        self._databases: dict[str, Database] = {}
        self._waiting: dict[str, None] = {}  # an ordered set
        self._backing_off: list[tuple[float, str]] = []

    def __contains__(self, name: str) -> bool:
        return name in self._databases

    def __len__(self) -> int:
        return len(self._databases)

    def __iter__(self) -> Iterator[str]:
        return iter(self._databases)

    def get(self, name: str) -> Database | None:
        """Return the state of a database."""
        return self._databases.get(name)

    def items(self) -> Iterator[tuple[str, Database]]:
        """Yield every database with its name."""
        return iter(self._databases.items())

    def add(self, name: str, proofs: bytes = b"", *, paused: bool = False) -> None:
        """Add a database without changes."""
        if name not in self._databases:
            state = DatabaseState.PAUSED if paused else DatabaseState.PARKED
            database = self._databases[name] = Database(state=state, proofs=proofs)
            self.counts[database.state] += 1

    def mark(self, name: str, now: float) -> None:
        """Note that a database may have changes; add it if it is new.

        A database that backs off, has failed or is paused keeps its state, and is read later. One that was
        not found is queued at once: it may have been recreated.
        """
        self.add(name)
        database = self._databases[name]
        if database.dirty_since is None:
            database.dirty_since = now
        was_missing = database.state is DatabaseState.BACKING_OFF and database.missing_since is not None
        if was_missing or database.state in (DatabaseState.PARKED, DatabaseState.DELETED):
            self._enqueue(name, database)

    def see(self, description: Description, now: float) -> None:
        """Note a database's description from a sweep, and mark it if it may have changes."""
        name = description.name
        is_new = name not in self._databases
        self.add(name)
        database = self._databases[name]
        database.seen, database.identity = description.digest, description.identity
        database.has_copies = description.has_copies
        is_proven = database.is_proof(description.digest) and not 0 < database.confirm_at <= now
        if is_new or database.state is DatabaseState.DELETED or not is_proven:
            self.mark(name, now)

    def take(self, now: float) -> str | None:
        """Take the next database out of the queue for its turn; None if none waits."""
        self._end_waits(now)
        if not self._waiting:
            return None
        name = next(iter(self._waiting))
        del self._waiting[name]
        database = self._databases[name]
        self._enter(database, DatabaseState.ACTIVE)
        database.proving, database.dirty_since = database.seen, None
        if database.confirm_at <= now:
            database.confirm_at = 0.0
        return name

    def park(self, name: str, now: float) -> bool:
        """End a turn that reached the head and wrote everything. Return whether that added a proof.

        The proof: if the description is the one from before the turn, nothing follows the checkpoint.
        """
        database = self._databases[name]
        if database.state is not DatabaseState.ACTIVE:  # paused meanwhile
            return False
        database.failures, database.missing_since = 0, None
        is_new = bool(database.proving) and not database.is_proof(database.proving)
        if is_new:
            database.proofs = (database.proofs + database.proving)[-PROOFS * DIGEST_BYTES :]
            database.confirm_at = now + COPY_LAG_SECONDS if database.has_copies else 0.0
        if database.dirty_since is None:
            self._enter(database, DatabaseState.PARKED)
        else:
            self._enqueue(name, database)
        return is_new

    def requeue(self, name: str, now: float) -> None:
        """End a turn that has more to read: move the database to the back of the queue."""
        database = self._databases[name]
        if database.state is not DatabaseState.ACTIVE:
            return
        database.failures, database.missing_since = 0, None
        database.dirty_since = now if database.dirty_since is None else database.dirty_since
        self._enqueue(name, database)

    def back_off(self, name: str, now: float, reason: str) -> float:
        """End a turn that failed; return the seconds until the next one."""
        database = self._databases[name]
        wait_seconds = min(FIRST_WAIT_SECONDS * 2.0**database.failures, LONGEST_WAIT_SECONDS)
        if database.state is DatabaseState.ACTIVE:
            database.failures += 1
            self._wait(name, database, now, wait_seconds, reason)
        return wait_seconds

    def miss(self, name: str, now: float, reason: str) -> bool:
        """End a turn that did not find the database; return whether it is certainly deleted.

        If it was marked during the turn, it may have been recreated, so return False.
        """
        database = self._databases[name]
        if database.state is not DatabaseState.ACTIVE:
            return False
        if database.dirty_since is not None:
            self._enqueue(name, database)
            return False
        if database.missing_since is None:
            database.missing_since = now
        if now - database.missing_since < MISSING_SECONDS:
            self._wait(name, database, now, database.missing_since + MISSING_SECONDS - now, reason)
            return False
        database.failures, database.was_deleted = 0, False
        self._delete(name, database, reason)
        return True

    def fail(self, name: str, reason: str) -> None:
        """End a turn of a database that needs an operator."""
        database = self._databases[name]
        if database.state is DatabaseState.ACTIVE:
            self._enter(database, DatabaseState.FAILED, reason)

    def delete(self, name: str, reason: str) -> None:
        """Note that a database does not exist, or no longer matches."""
        database = self._databases[name]
        if database.state is not DatabaseState.ACTIVE:
            self._delete(name, database, reason)

    def leave_out(self, name: str, reason: str) -> None:
        """End a turn of a database that no longer matches, before anything is read."""
        database = self._databases[name]
        if database.state is DatabaseState.ACTIVE:
            self._delete(name, database, reason)

    def pause(self, name: str) -> None:
        """Give a database no more turns until `resume`. The caller ends a running turn."""
        database = self._databases[name]
        self._waiting.pop(name, None)
        self._enter(database, DatabaseState.PAUSED)

    def resume(self, name: str, now: float) -> None:
        """Give a database a turn soon, even if it is paused, has failed, backs off or has one now."""
        database = self._databases[name]
        database.failures, database.missing_since = 0, None
        if database.dirty_since is None:
            database.dirty_since = now
        if database.state not in (DatabaseState.ACTIVE, DatabaseState.QUEUED):
            self._enqueue(name, database)

    def end_waits(self, now: float) -> None:
        """Queue all databases that back off: the server can be reached again."""
        for name, database in self._databases.items():
            if database.state is DatabaseState.BACKING_OFF and database.missing_since is None:
                self.resume(name, now)

    def next_wait(self, now: float) -> float | None:
        """Return the seconds until the first back-off ends; None if no database backs off."""
        self._drop_outdated()
        return max(0.0, self._backing_off[0][0] - now) if self._backing_off else None

    @property
    def waiting(self) -> int:
        """The number of databases that wait for their turn."""
        return len(self._waiting)

    def oldest_dirty_at(self) -> float | None:
        """Return when the first queued database became dirty, in monotonic seconds; None if none waits."""
        first = next(iter(self._waiting), None)
        return None if first is None else self._databases[first].dirty_since

    def state_counts(self) -> Mapping[str, int]:
        """Return state -> number of databases; states without databases are left out."""
        return {str(state): self.counts[state] for state in DatabaseState if self.counts[state]}

    def _enter(self, database: Database, state: DatabaseState, reason: str = "") -> None:
        self.counts[database.state] -= 1
        self.counts[state] += 1
        database.state, database.reason = state, reason

    def _delete(self, name: str, database: Database, reason: str) -> None:
        self._waiting.pop(name, None)
        database.dirty_since, database.proofs = None, b""
        self._enter(database, DatabaseState.DELETED, reason)

    def _enqueue(self, name: str, database: Database) -> None:
        self._waiting[name] = None
        self._enter(database, DatabaseState.QUEUED)

    def _wait(self, name: str, database: Database, now: float, seconds: float, reason: str) -> None:
        database.dirty_since = now if database.dirty_since is None else database.dirty_since
        database.retry_at = now + seconds
        heapq.heappush(self._backing_off, (database.retry_at, name))
        self._enter(database, DatabaseState.BACKING_OFF, reason)

    def _drop_outdated(self) -> None:
        while self._backing_off:
            at, name = self._backing_off[0]
            database = self._databases[name]
            if database.state is DatabaseState.BACKING_OFF and database.retry_at == at:
                return
            heapq.heappop(self._backing_off)

    def _end_waits(self, now: float) -> None:
        self._drop_outdated()
        while self._backing_off and self._backing_off[0][0] <= now:
            _, name = heapq.heappop(self._backing_off)
            self._enqueue(name, self._databases[name])
            self._drop_outdated()
