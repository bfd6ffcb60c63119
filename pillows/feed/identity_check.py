"""Is a database still the one that a checkpoint belongs to, and what was purged from it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pillows.errors import RecreatedError
from pillows.feed.base import DatabaseIdentity
from pillows.feed.document_fetcher import DocumentFetcher
from pillows.feed.source_database import SourceDatabase
from pillows.models import Change, ChangeBatch

#: The revision of a document that was purged: it has none, and any other is greater.
PURGED_REV = "0-purged"
PURGED_GROUP = 100


class IdentityCheck:
    """Recognises one database over the requests of one reading.

    Args:
        source: the database.
        documents: fetches its documents.
        identity: the database that is expected; None: whichever is there.
        put: takes what was purged.
        warn: tells the operator: an event and its details.

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

    def check(self) -> None:
        """Makes sure that the response just opened comes from the database that we know.

        Asked after the response has begun: a feed ends when its database is deleted, so nothing
        of another database can come between. Asked of every page, too: beside 2,000 rows it costs
        nothing, and the answer of a moment ago says nothing of a database that was created since.

        Raises:
            RecreatedError: it is another one. CouchDB takes the position of any other database and
                answers with everything from the start.
        """
        known = self.identity
        if known is None or not self._asked:
            found = self._source.identify()
        else:
            found = self._source.info(known.server_uuid)
        if known is not None:
            self._refuse_other(known, found)
            self._note_changes(known, found)
        self.identity = found if known is None else known.updated(found)
        self._asked = True

    def confirm(self) -> None:
        """Makes sure that what was just fetched, by id, came from that database too.

        Raises:
            RecreatedError: it may be of another one, in which a document is gone, or starts anew.
        """
        if self.identity is not None:
            self._refuse_other(self.identity, self._source.info(self.identity.server_uuid))

    def _refuse_other(self, known: DatabaseIdentity, found: DatabaseIdentity) -> None:
        if known.contradicts(found):
            raise RecreatedError(
                f"The database {self._source.options.database} was created at {found.instance_start_time}; "
                f"the checkpoint belongs to the one created at {known.instance_start_time}.",
                remedy="`pillowd checkpoint reset`, or `on_recreated: reload`",
            )
        if known.marked and self._source.options.identity_token and not self._source.marked():
            raise RecreatedError(
                f"The database {self._source.options.database} does not have the document that marks it.",
                remedy="`pillowd checkpoint reset`, or `on_recreated: reload`",
            )

    def _note_changes(self, known: DatabaseIdentity, found: DatabaseIdentity) -> None:
        """Tells what is no reason to stop. Nodes behind one address may have different uuids."""
        if known.server_uuid and found.server_uuid and known.server_uuid != found.server_uuid:
            details = {"before": known.server_uuid, "now": found.server_uuid}
            self._warn("source.other_server", details)
        if found.purged_since(known.purge_seq):
            self._put(ChangeBatch(changes=self._purged(), seq=None, purge_seq=found.purge_seq))

    def _purged(self) -> Sequence[Change]:
        """What was purged, as deleted at version 0: CouchDB's feed has no row for it.

        A guarded target refuses that, the refusal is looked at, and what the source does not know
        any more is removed. What is there again, or still has another leaf, is left out.
        """
        ids = self._source.purged_ids()
        if ids is None:
            self._warn("source.purged", {"remedy": "`pillowd verify --repair`"})
            return ()
        gone: list[Change] = []
        for begin in range(0, len(ids), PURGED_GROUP):
            group = ids[begin : begin + PURGED_GROUP]
            there = self._documents.read_versions(group)
            gone += [Change(id, (PURGED_REV,), 0, deleted=True) for id in group if id not in there]
        self._warn("source.purged", {"documents": len(gone)})
        return gone
