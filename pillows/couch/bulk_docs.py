"""Write many documents with `_bulk_docs`: the request, its rows, and halves for a rejected request.

CouchDB docs, "/{db}/_bulk_docs": each document has a row in the answer, in the order of the request; with
`new_edits: false` only documents that failed have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from pillows.couch.client import CouchClient
from pillows.couch.errors import RejectedError
from pillows.halving import send_in_halves

#: The error of a row for a document that makes CouchDB reject every request that holds it.
REJECTED = "rejected"

#: CouchDB rejects a whole request with these for one document: an invalid field, or too large.
_DOCUMENT_STATUSES = {400, 413}

#: Longest silence of the server before the first byte of its answer.
_SILENT_SECONDS = 60.0

#: The id of a document, empty where the server chooses it, and the JSON of each revision to write.
Edits = tuple[str, Sequence[bytes]]


class WrittenRow(msgspec.Struct, frozen=True):
    """CouchDB's answer for one document.

    Attributes:
        id: the document's id.
        error: a word, such as `conflict` or `forbidden`; empty when it was written.
        reason: a sentence.
    """

    id: str = ""
    error: str = ""
    reason: str | None = None

    @property
    def is_conflict(self) -> bool:
        """Whether the database holds another revision."""
        return self.error == "conflict"

    def __str__(self) -> str:
        """Return the error as an operator reads it."""
        return self.reason or "" if self.error == REJECTED else f"{self.error}: {self.reason}"


def bulk_docs(
    couch: CouchClient, database: str, documents: Sequence[Edits], *, new_edits: bool = True
) -> list[WrittenRow]:
    """Write documents; if CouchDB rejects a request because of one document, send it again in halves.

    Args:
        couch: the server.
        database: its name.
        documents: what to write.
        new_edits: False stores the revisions as they are.

    Returns:
        The rows of all answers, in the order of the documents. A document that was rejected by itself has
        one row with the error `REJECTED`.

    Raises:
        PillowError: as `CouchClient.json`: the outcome of the whole request is unknown.
    """
    if not documents:
        return []
    write = partial(_write, couch, database, new_edits)
    answers = send_in_halves(documents, write, is_rejected_for_a_document)
    return [row for rows in answers for row in rows]


def is_rejected_for_a_document(error: Exception) -> bool:
    """Return whether a request was rejected because of one of its documents."""
    return isinstance(error, RejectedError) and error.status in _DOCUMENT_STATUSES


def _write(
    couch: CouchClient, database: str, new_edits: bool, documents: Sequence[Edits]
) -> list[WrittenRow]:
    docs = [msgspec.Raw(raw) for _, revisions in documents for raw in revisions]
    try:
        return couch.json(
            "POST",
            couch.path(database, "_bulk_docs"),
            list[WrittenRow],
            body={"docs": docs, "new_edits": new_edits},
            silent_seconds=_SILENT_SECONDS,
        )
    except RejectedError as error:
        if len(documents) > 1 or not is_rejected_for_a_document(error):
            raise
        return [WrittenRow(id=documents[0][0], error=REJECTED, reason=str(error))]
