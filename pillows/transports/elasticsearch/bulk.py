"""Documents in the bulk format, and what its answers mean. Nothing here waits.

Every operation carries `version: write_version(epoch, leaf_version)` with `version_type: external`:
Elasticsearch then refuses (409) what is not newer than what it has, and a replay costs no indexing.

A document passes through as the bytes that CouchDB sent. Only `_id` must go, since Elasticsearch
takes no field of that name; CouchDB writes it first, so it is cut off without parsing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from pillows.models import DocumentRows, Row, WriteResult, write_version
from pillows.transports.elasticsearch.connection import PASSING, cause_of

#: Where a tombstone says when (milliseconds since 1970) its document was deleted.
DELETED_AT = "pillowd_deleted_at"

#: Elasticsearch's limit of an `_id`; one longer id fails its whole request.
MAX_ID_BYTES = 512

#: Operations in one request: answering more than this would hold the hub for too long.
MAX_OPERATIONS = 2_000

_INDEX = b'{"index":{"_id":%b,"version":%d,"version_type":"external"}}\n%b\n'
_DELETE = b'{"delete":{"_id":%b,"version":%d,"version_type":"external"}}\n'
_TOMBSTONE = (  # no pipeline: what it would do to a document is not meant for these
    b'{"index":{"_id":%%b,"version":%%d,"version_type":"external","pipeline":"_none"}}\n{"%b":%%d}\n'
    % DELETED_AT.encode()
)
_PURGE = b'{"delete":{"_id":%b,"version":%d,"version_type":"external_gte"}}\n'

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_TOMBSTONE_FIELD = re.compile(rb'"%b"\s*:' % DELETED_AT.encode())

_CURRENT_VERSION = re.compile(r"current version \[(\d+)\]")


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One line or two of a bulk request.

    Attributes:
        id: the document's id.
        write_version: what the index stores with it.
        removes: whether it takes the document away.
        body: the lines.
    """

    id: str
    write_version: int
    removes: bool
    body: bytes


class Outcome(Enum):
    """What became of one operation."""

    APPLIED = "applied"
    REFUSED = "refused"  # the index has this version or a newer one
    DEAD = "dead"
    RETRY = "retry"
    FORBIDDEN = "forbidden"
    MISSING = "missing"  # the index is gone


class Tally:
    """What became of the operations of one batch, over all its outputs.

    Attributes:
        refused, dead, retry: as in `WriteResult`.
        removed: how many documents were taken away.
    """

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}
        self.dead: dict[str, str] = {}
        self.retry: dict[str, str] = {}
        self.removed = 0

    def result(self) -> WriteResult:
        """One answer a document: what can still change goes before what is final."""
        dead = {id: reason for id, reason in self.dead.items() if id not in self.retry}
        settled = self.retry.keys() | dead.keys()
        refused = {id: stored for id, stored in self.refused.items() if id not in settled}
        return WriteResult(refused=refused, dead=dead, retry=self.retry)


def operations(
    documents: Sequence[DocumentRows], output: str, epoch: int, *, deleted_at_ms: int | None
) -> tuple[list[Operation], dict[str, str]]:
    """What makes one output hold exactly the rows of these documents.

    Args:
        documents: at most one entry per id.
        output: its name.
        epoch: the epoch to write under.
        deleted_at_ms: the time that tombstones tell; None where deletes leave none.

    Returns:
        The operations; and id -> reason of the documents that can't be written.
    """
    made: list[Operation] = []
    dead: dict[str, str] = {}
    for document in documents:
        rows = document.rows.get(output)
        quoted = _encode(document.id)
        if len(quoted) > MAX_ID_BYTES and (reason := _too_long(document.id)):
            if rows:  # without rows nothing is to be done: it can't be there
                dead[document.id] = reason
            continue
        version = write_version(epoch, document.leaf_version)
        if not rows:
            made.append(removal(document.id, version, deleted_at_ms=deleted_at_ms))
            continue
        try:
            source = _source(rows, quoted)
            if deleted_at_ms is not None and _TOMBSTONE_FIELD.search(source):
                raise ValueError(f"a field {DELETED_AT} would make it a tombstone")  # noqa: TRY301 - as below
            made.append(Operation(document.id, version, False, _INDEX % (quoted, version, source)))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            dead[document.id] = f"its row can't be written: {error}"
    return made, dead


def removal(id: str, version: int, *, deleted_at_ms: int | None) -> Operation:
    """Takes a document away; leaves a tombstone if there is a time to tell."""
    quoted = _encode(id)
    if deleted_at_ms is None:
        return Operation(id, version, True, _DELETE % (quoted, version))
    return Operation(id, version, True, _TOMBSTONE % (quoted, version, deleted_at_ms))


def purge(id: str, version: int) -> Operation:
    """Takes an expired tombstone away, unless something newer has come."""
    return Operation(id, version, True, _PURGE % (_encode(id), version))


def cut(made: Sequence[Operation], max_bytes: int) -> Iterator[Sequence[Operation]]:
    """Cuts operations into requests of at most so many bytes; a larger one goes alone."""
    start = size = 0
    for n, operation in enumerate(made):
        if n > start and (size + len(operation.body) > max_bytes or n - start >= MAX_OPERATIONS):
            yield made[start:n]
            start, size = n, 0
        size += len(operation.body)
    if start < len(made):
        yield made[start:]


def classify(status: int, item: Mapping[str, Any]) -> Outcome:
    """What became of an operation, of one item of a bulk answer.

    Args:
        status: the item's status.
        item: the item, with its `error` if it has one.
    """
    if "error" not in item:  # 404 without an error: a delete of what is not there
        return Outcome.APPLIED if status < 300 or status == 404 else Outcome.RETRY
    type_, _ = cause_of(item)
    if type_ in PASSING or status == 429 or status >= 500:
        return Outcome.RETRY
    if status == 409:
        return Outcome.REFUSED if type_ == "version_conflict_engine_exception" else Outcome.RETRY
    if status in {401, 403}:
        return Outcome.FORBIDDEN
    return Outcome.MISSING if status == 404 else Outcome.DEAD


def a_document_is_at_fault(status: int, body: object) -> bool:
    """Whether a whole request was refused for what is in it, so that parts of it may pass.

    Args:
        status: of the answer; 413 comes without a body.
        body: of the answer. A 400 that is not in Elasticsearch's form comes from something between.
    """
    type_, _ = cause_of(body)
    return status == 413 or (status == 400 and bool(type_) and type_ not in PASSING)


def refusal(status: int, body: object, size_bytes: int) -> str:
    """Why a request with one document was refused."""
    if status == 413:
        return f"with {size_bytes} bytes it is larger than the server takes (http.max_content_length)"
    return " ".join(cause_of(body))


def stored_version(item: Mapping[str, Any]) -> int | None:
    """The version that a conflict says is there; None where it says none.

    The number stands in the reason only. Elasticsearch tells the version of a deleted document
    nowhere else, so this is read where nothing better is to be had, and nothing relies on it.
    """
    found = _CURRENT_VERSION.search(cause_of(item)[1])
    return int(found[1]) if found else None


def _source(rows: Sequence[Row], quoted_id: bytes) -> bytes:
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows, but an index holds at most one row of a document")
    (row,) = rows
    if not isinstance(row, msgspec.Raw):
        return _encode({k: v for k, v in row.items() if k != "_id"} if "_id" in row else row)
    raw = bytes(row)
    start = b'{"_id":%b,' % quoted_id
    if raw.startswith(start) and b"\n" not in raw:
        return b"{" + raw[len(start) :]
    fields = _decode_fields(raw)  # values stay raw: numbers keep every digit
    fields.pop("_id", None)
    return _encode(fields).replace(b"\n", b" ")  # between values only: a string can't hold one


def _too_long(id: str) -> str | None:
    size = len(id.encode())
    return f"its id has {size} bytes, Elasticsearch takes {MAX_ID_BYTES}" if size > MAX_ID_BYTES else None
