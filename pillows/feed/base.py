"""Reads changes: what the pipeline asks of any source."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gevent.event import Event

from checkpoints import Seq
from pillows.models import Change, ChangeBatch, Document

#: While nothing comes, a sign of life is given as often as this.
TICK_SECONDS = 5.0

#: Tells the consumer that nothing came, and that somebody is there.
SIGN_OF_LIFE = ChangeBatch(changes=(), seq=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseIdentity:
    """Which database this is, as far as a server tells.

    Attributes:
        server_uuid: of the server (`GET /`); nodes of one cluster may differ, so a change is a hint.
        instance_start_time: when the database was created, in seconds since CouchDB 3.3; "0" before
            then, and None where a server says nothing: neither is evidence of anything.
        purge_seq: moves with every purge; see `purges`.
        marked: whether it was marked (`Feed.mark`), so that one without the mark is another. Servers do
            not tell: it is remembered.
    """

    server_uuid: str | None = None
    instance_start_time: str | None = None
    purge_seq: str | None = None
    marked: bool = False

    def contradicts(self, other: DatabaseIdentity) -> bool:
        """Whether the two cannot be the same database.

        An upgrade from 3.2 turns "0" into a time (apache/couchdb#4623), so "0" is no alarm.
        """
        return self.instance_start_time != other.instance_start_time and self.tells and other.tells

    @property
    def tells(self) -> bool:
        """Whether it says when the database was created."""
        return self.instance_start_time not in {None, "", "0"}

    def updated(self, found: DatabaseIdentity) -> DatabaseIdentity:
        """What is known after a server said `found` of the same database.

        While a cluster is upgraded to 3.3 its old nodes still say "0": that takes away nothing that a
        new one has told.
        """
        found = replace(found, marked=self.marked)
        if found.tells or not self.tells:
            return found
        return replace(found, instance_start_time=self.instance_start_time)

    def purged_since(self, purge_seq: str | None) -> bool:
        """Whether the database was purged since it was at that purge position, as far as it tells."""
        return bool(self.purge_seq and purge_seq and purges(self.purge_seq) != purges(purge_seq))


def purges(purge_seq: str) -> str:
    """How many purges a position stands for; the rest of it differs from copy to copy."""
    return purge_seq.partition("-")[0]


class Feed(Protocol):
    """A source of changes."""

    @property
    def last_byte_at(self) -> float | None:
        """Monotonic seconds of the last good byte; None before the first."""

    @property
    def trouble(self) -> str | None:
        """Why the feed is waiting to try again; None while it is well."""

    def identify(self) -> DatabaseIdentity:
        """Asks which database this is; one attempt.

        Raises:
            RetryableError: the server is away, or the database does not exist and may come
                (`on_missing: wait`).
            SourceMissingError: it does not exist (`on_missing: fail`).
            AccessError: the server does not let us in.
        """

    def mark(self) -> bool:
        """Marks the database, where that was asked for; one attempt.

        For a tail that has no mark yet: whichever database is there is taken for the tail's own.

        Returns:
            Whether it is marked.

        Raises:
            As `identify`.
        """

    def start(self) -> Seq:
        """Where a tail without a checkpoint begins; one attempt. To be saved before reading on.

        Raises:
            As `identify`.
        """

    def batches(
        self, since: Seq, identity: DatabaseIdentity | None, stop: Event
    ) -> Generator[ChangeBatch, None, None]:
        """Changes after `since`, for ever, until `stop` is set.

        What fails and may succeed later is tried again inside. While nothing comes, an empty batch
        without `seq` is given every 5 s, so that the caller can show that it lives. After `stop`
        what was already asked for is handed over (for `timeouts.drain` at most), cut at a position,
        so that a clean stop reads nothing twice.

        Args:
            since: the position to read on from.
            identity: of the database that `since` belongs to; None where unknown.
            stop: ends the iteration.

        Raises:
            SourceChangedError: the database is another one.
            SourceMissingError: it does not exist, and `on_missing` is `fail`.
            InvalidSeqError: the server does not take `since`.
            AccessError: the server does not let us in.
        """

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        """A fresh read of documents' versions (the sum of the generations of all leaves).

        Returns:
            id -> version; an id that has no leaf at all is missing.

        Raises:
            As `identify`.
        """

    def current(self, ids: Sequence[str]) -> Sequence[Change]:
        """The state of now of documents, with their bodies; one attempt.

        Returns:
            A change for each id, in that order; an id that is not there is deleted, of version 0.

        Raises:
            As `identify`.
        """

    def fetch(self, change: Change) -> Document:
        """Fetches the document of a change that came without one; one attempt.

        Raises:
            As `identify`.
        """

    def attachment(self, id: str, rev: str, name: str, max_bytes: int) -> bytes | None:
        """Reads an attachment; one attempt.

        Returns:
            Its content; None where the revision has none of that name any more, or it is larger.

        Raises:
            As `identify`.
        """

    def pending(self, since: Seq) -> int | None:
        """How many changes are behind `since`, as the server says; None where it does not.

        Raises:
            As `identify`.
        """

    def close(self) -> None:
        """Closes every connection. May be called twice."""
