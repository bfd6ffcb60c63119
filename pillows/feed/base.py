"""The contract of a source of changes."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Protocol

from gevent.event import Event
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Seq
from pillows.errors import RecreatedError
from pillows.models import Change, ChangeBatch, Document

#: Interval of the empty batches that an idle feed yields.
TICK_SECONDS = 5.0

#: Revision of a purged document, which has none; every real revision is greater.
PURGED_REV = "0-purged"

#: An empty batch: nothing arrived, but the feed is alive.
SIGN_OF_LIFE = ChangeBatch(changes=(), seq=None)


def make_recreated_error(database: str, evidence: str) -> RecreatedError:
    """Return the error for a database that is not the one of the checkpoint.

    Args:
        database: as messages name it.
        evidence: a sentence that says how that is known.
    """
    return RecreatedError(
        f"The database {database} was recreated: {evidence}",
        remedy="`pillowd checkpoint reset KEY`, or `on_recreated: reload`",
    )


class DatabaseIdentity(Struct, frozen=True, kw_only=True):
    """The identity of a database, as far as the server reports it.

    Attributes:
        server_uuid: of the server (`GET /`); nodes of one cluster may differ, so a change is a hint.
        instance_start_time: when the database was created, in seconds, since CouchDB 3.3. "0" before 3.3,
            and None if the server does not say: neither is evidence.
        purge_seq: moves with every purge; see `count_purges`.
        marked: whether it has our identity token (`Feed.mark`); then a database without the token is another
            one. This comes from the checkpoint, not from the server.
    """

    server_uuid: str | None = None
    instance_start_time: str | None = None
    purge_seq: str | None = None
    marked: bool = False

    def contradicts(self, other: DatabaseIdentity) -> bool:
        """Return whether the two cannot be the same database.

        An upgrade from 3.2 turns "0" into a time (apache/couchdb#4623), so "0" is not a contradiction.
        """
        return (
            self.instance_start_time != other.instance_start_time
            and self.has_start_time
            and other.has_start_time
        )

    @property
    def has_start_time(self) -> bool:
        """Whether it is known when the database was created."""
        return self.instance_start_time not in {None, "", "0"}

    def updated(self, found: DatabaseIdentity) -> DatabaseIdentity:
        """Return this identity, updated by a later answer for the same database.

        During a cluster's upgrade to 3.3, old nodes still answer "0": a known time is kept.
        """
        found = replace(found, marked=self.marked)
        if found.has_start_time or not self.has_start_time:
            return found
        return replace(found, instance_start_time=self.instance_start_time)

    def purged_since(self, purge_seq: str | None) -> bool:
        """Return whether the database was purged since that purge position, if both are known."""
        return bool(self.purge_seq and purge_seq and count_purges(self.purge_seq) != count_purges(purge_seq))

    def count_purges_since(self, purge_seq: str | None) -> int:
        """Return the number of purges since that purge position, or ever (None); 0 if that is unknown."""
        now, before = (count_purges(seq or "") for seq in (self.purge_seq, purge_seq or "0"))
        return int(now) - int(before) if now.isdigit() and before.isdigit() else 0


def count_purges(purge_seq: str) -> str:
    """Return the number of purges in a purge position; the rest of it differs between copies."""
    return purge_seq.partition("-")[0]


class SourceLookup(Protocol):
    """Reads single documents of a source, apart from its feed. No method retries a failure.

    Each raises RetryableError when the server is away, or the database is missing and may be created
    (`on_missing: wait`); SourceMissingError when it is missing (`on_missing: fail`); AccessError when the
    server denies access.
    """

    def identify(self) -> DatabaseIdentity:
        """Read the database's identity and purge position."""

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Read documents' leaf versions (the sum of the revision numbers of all leaves).

        Returns:
            id -> leaf version; an id without any leaf is missing.
        """

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """Read the current state of documents with their JSON.

        Returns:
            A change for each id, in that order; a missing document is deleted, of version 0.
        """

    def fetch(self, change: Change) -> Document:
        """Fetch the document of a change that came without one."""

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Read an attachment.

        Returns:
            Its content; None when the revision has no such attachment any more, or it is larger.
        """


class Feed(SourceLookup, Protocol):
    """A source of changes."""

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte; None before the first."""

    @property
    def trouble(self) -> str | None:
        """Why the feed waits for a retry; None if it does not."""

    def mark(self) -> bool:
        """Write our identity token to the database, if that is configured; a failure is not retried.

        Call it only for a tail that has not marked its database yet: the database that exists now becomes
        the tail's own.

        Returns:
            Whether the database has the token.

        Raises:
            PillowError: as `SourceLookup`.
        """

    def start(self) -> Seq:
        """Return where a tail without a checkpoint begins; a failure is not retried.

        Save the position before reading changes.

        Raises:
            PillowError: as `SourceLookup`.
        """

    def find_first(self) -> Seq:
        """Return where a pass into empty outputs begins; a failure is not retried.

        That is the beginning of the feed or, for a source with many deletions, the start of a listing, which
        the feed then follows. Save the position before reading changes.

        Raises:
            PillowError: as `SourceLookup`.
        """

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Yield the changes after `since`, forever, until `stop` is set.

        Temporary failures are retried inside. While nothing arrives, an empty batch without `seq` is yielded
        every 5 s, as a sign of life. After `stop`, responses in flight are still yielded (for at most
        `timeouts.drain`), cut at a position, so that nothing is read twice after a clean stop.

        Args:
            since: the position to read on from.
            identity: of the database that `since` belongs to; None if unknown.
            stop: ends the iteration.

        Raises:
            SourceChangedError: the database is another one.
            SourceMissingError: it does not exist, and `on_missing` is `fail`.
            InvalidSeqError: the server rejects `since`.
            AccessError: the server denies access.
        """

    def pending(self, since: Seq) -> int | None:
        """Return how many changes follow `since`; None if the server does not report it.

        Raises:
            PillowError: as `SourceLookup`.
        """

    def close(self) -> None:
        """Close every connection. May be called twice."""
