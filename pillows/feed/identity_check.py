"""Check that a database was not recreated since a checkpoint, and find documents that were purged from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import gevent
from gevent.lock import RLock

from pillows.errors import RetryableError
from pillows.feed.base import PURGED_REV, DatabaseIdentity, make_recreated_error
from pillows.feed.documents.fetcher import DocumentFetcher
from pillows.feed.source_database import PurgeInfo, SourceDatabase
from pillows.models import Change, ChangeBatch

#: Longest time between two checks while one response is read: a busy one never ends, and CouchDB's feed has
#: no row for a purge. Targets remove purged documents within 30 s. A little longer than an idle response
#: (25 s), since the next one is checked anyway.
CHECK_SECONDS = 26.0


#: Documents looked up with one request.
PURGED_GROUP = 100


class IdentityCheck:
    """Checks, while a feed is read, that it is still the checkpoint's database.

    Args:
        source: the database.
        documents: fetches its documents.
        identity: the expected database; None accepts any.
        put: receives a batch of deletions for purged documents.
        warn: reports an event and its details to the operator.

    Attributes:
        identity: the database that was found last.
    """

    def __init__(
        self,
        source: SourceDatabase,
        documents: DocumentFetcher,
        identity: DatabaseIdentity | None,
        *,
        put: Callable[[ChangeBatch], None],
        warn: Callable[[str, Mapping[str, object]], None],
    ) -> None:
        self.identity = identity
        self._source = source
        self._documents = documents
        self._put = put
        self._warn = warn
        self._asked = False
        self._checked_at = 0.0
        self._listed = Counter[PurgeInfo]()
        self._lock = RLock()

    @contextmanager
    def repeat(self) -> Iterator[None]:
        """Check inside the block after `CHECK_SECONDS` without a check; raise the errors in this greenlet."""
        self._checked_at = monotonic()
        checker = gevent.spawn(self._repeat, gevent.getcurrent())
        try:
            yield
        finally:
            checker.kill()

    def check(self) -> None:
        """Check that the response just opened comes from the expected database.

        Call it after the response has begun: a feed ends when its database is deleted, so no row of another
        database can follow. Call it for every page: next to 2,000 rows it costs nothing, and the database may
        have been recreated since the last check.

        Raises:
            RecreatedError: the database was recreated. CouchDB accepts a position of any other database, and
                then returns all changes from the beginning.
        """
        with self._lock:
            self._check()

    def confirm(self) -> None:
        """Check that documents just fetched by id come from that database, too.

        Raises:
            RecreatedError: the database was recreated, so they may come from the new one.
        """
        if self.identity is not None:
            self._reject_other(self.identity, self._source.info(self.identity.server_uuid))

    def _repeat(self, reading: Any) -> None:
        while True:
            gevent.sleep(max(0.0, self._checked_at + CHECK_SECONDS - monotonic()))
            if monotonic() < self._checked_at + CHECK_SECONDS:
                continue  # another response was checked meanwhile
            try:
                self.check()
            except RetryableError:
                continue  # the reading notices by itself that the server is away
            except Exception as error:  # noqa: BLE001 - raised in the reading
                gevent.kill(reading, error)
                return

    def _check(self) -> None:
        self._checked_at = monotonic()
        known = self.identity
        if known is None or not self._asked:
            found = self._source.identify()
        else:
            found = self._source.info(known.server_uuid)
        if known is not None:
            self._reject_other(known, found)
            self._report_changes(known, found)
        self.identity = found if known is None else known.updated(found)
        self._asked = True

    def _reject_other(self, known: DatabaseIdentity, found: DatabaseIdentity) -> None:
        if known.contradicts(found):
            raise make_recreated_error(
                self._source.options.database,
                f"it was created at {found.instance_start_time}, and that of the checkpoint was created at "
                f"{known.instance_start_time}.",
            )
        if known.marked and self._source.options.identity_token and not self._source.is_marked():
            raise make_recreated_error(self._source.options.database, "it lacks the identity token.")

    def _report_changes(self, known: DatabaseIdentity, found: DatabaseIdentity) -> None:
        """Report identity changes that need no stop. Nodes behind one address may have different uuids."""
        if known.server_uuid and found.server_uuid and known.server_uuid != found.server_uuid:
            details = {"before": known.server_uuid, "now": found.server_uuid}
            self._warn("source.other_server", details)
        if found.purged_since(known.purge_seq):
            self._put(self._find_purged(known, found))

    def _find_purged(self, known: DatabaseIdentity, found: DatabaseIdentity) -> ChangeBatch:
        """Return the purged documents as deleted at version 0: CouchDB's feed has no row for them.

        A versioned target refuses that as stale, the refusal is checked at the source, and documents that
        the source does not know are removed. Documents that exist again, or still have a leaf, are left out.
        """
        purges = found.count_purges_since(known.purge_seq)
        listed = self._source.list_purges()
        if listed is None or self._is_cut(listed, purges, found):
            self._warn("source.purges_missed", {"purges": purges, "listed": len(listed or ())})
            missed = max(1, purges)
        else:
            missed = 0
        ids = self._find_new(listed or (), purges)
        gone: list[Change] = []
        for begin in range(0, len(ids), PURGED_GROUP):
            group = ids[begin : begin + PURGED_GROUP]
            existing = self._documents.read_versions(group)
            gone += [Change(id, (PURGED_REV,), 0, deleted=True) for id in group if id not in existing]
        if listed is not None:
            self._warn("source.purged", {"documents": len(gone)})
        return ChangeBatch(
            changes=gone,
            seq=None,
            purge_seq=found.purge_seq,
            recreated=len(gone) < len(ids) or missed > 0,
            purges_missed=missed,
        )

    def _is_cut(self, listed: Sequence[PurgeInfo], purges: int, found: DatabaseIdentity) -> bool:
        """Return whether the list may lack some of the purges since the last look.

        Each shard drops its oldest purges beyond a limit, when it is compacted. So all are there if none was
        ever dropped, or no shard can have had more of them than it keeps.
        """
        if purges <= 0 or found.count_purges_since(None) <= len(listed):
            return False
        return purges > len(listed) or purges > self._source.read_purges_limit()

    def _find_new(self, listed: Sequence[PurgeInfo], purges: int) -> list[str]:
        """Return the ids of the purges since the last call; of all listed ones if the new are unknown."""
        now = Counter(listed)
        new = now - self._listed
        self._listed = now
        return list({info.id: None for info in (new if new.total() == purges else now)})
