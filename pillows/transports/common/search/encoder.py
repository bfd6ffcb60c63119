"""Documents in the bulk format. Nothing here waits.

Every operation carries `version: write_version(epoch, leaf_version)` with `version_type: external`:
the server then refuses (409) every version that is not newer than its own, and a replay costs no indexing.

A document passes through as the bytes that CouchDB sent. Only `_id` must go, since an index
takes no field of that name; CouchDB writes it first, so it is cut off without parsing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from pillows import strict_json
from pillows.errors import PermanentError
from pillows.models import DocumentRows, Row, split_key, write_version
from pillows.strict_json import run_deeply
from pillows.transports.common.same_json import read_json

#: The field of a tombstone that holds the time of the delete, in milliseconds since 1970.
DELETED_AT = "pillowd_deleted_at"

#: The field of a deleted document that is kept as it was, with the time.
MARKED_AT = "_deleted_at"
#: The field with the source of a document, where those of several databases come; see `Transport.share`.
SOURCE = "pillowd_source"

#: The servers' limit of an `_id`; a single longer one fails the whole request.
MAX_ID_BYTES = 512

#: Operations per request: reading a longer answer would block the hub for too long.
MAX_OPERATIONS = 2_000

_INDEX = b'{"index":{"_id":%b,"version":%d,"version_type":"external"}}\n%b\n'
_DELETE = b'{"delete":{"_id":%b,"version":%d,"version_type":"external"}}\n'
_TOMBSTONE = (  # without the ingest pipeline, which is meant for documents
    b'{"index":{"_id":%%b,"version":%%d,"version_type":"external","pipeline":"_none"}}\n{"%b":%%d}\n'
    % DELETED_AT.encode()
)
# The ingest pipeline has seen it already.
_MARK = b'{"index":{"_id":%b,"version":%d,"version_type":"external","pipeline":"_none"}}\n%b\n'
_PURGE = b'{"delete":{"_id":%b,"version":%d,"version_type":"external_gte"}}\n'

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

#: Where one of the two may be a field.
_OWN_FIELD = re.compile(rb'"(?:%b|%b)"\s*:' % (DELETED_AT.encode(), MARKED_AT.encode()))


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation of a bulk request.

    Attributes:
        id: the document's id.
        write_version: what the index stores with it.
        removes: whether it removes the document, or marks it as deleted.
        body: its one or two lines.
        marks: whether it keeps the fields of a deleted document.
    """

    id: str
    write_version: int
    removes: bool
    body: bytes
    marks: bool = False

    def read_source(self) -> Any:
        """Return the document that an operation stores, as answers are read."""
        return run_deeply(lambda: read_json(self.body.split(b"\n", 2)[1]))


def encode_operations(
    documents: Sequence[DocumentRows],
    output: str,
    epoch: int,
    *,
    deleted_at_ms: int | None,
    deleted_field: str = "",
    connection: str | None = None,
) -> tuple[list[Operation], dict[str, str]]:
    """Return the operations that make one output hold exactly the rows of these documents.

    Args:
        documents: at most one entry per id.
        output: its name.
        epoch: the epoch to write under.
        deleted_at_ms: the time in tombstones; None if deletes leave none.
        deleted_field: the field that marks deleted documents; no document may have it.
        connection: the source's connection, if documents of several databases come; see `Transport.share`.

    Returns:
        The operations; and id -> reason of the documents that can't be written.
    """
    made: list[Operation] = []
    dead: dict[str, str] = {}
    for document in documents:
        rows = document.rows.get(output)
        quoted = _encode(document.id)
        if len(quoted) > MAX_ID_BYTES and (reason := _describe_long_id(document.id)):
            if rows:  # without rows nothing is to be done: it can't be stored
                dead[document.id] = reason
            continue
        try:
            version = write_version(epoch, document.leaf_version)
            if not rows:
                made.append(encode_removal(document.id, version, deleted_at_ms=deleted_at_ms))
                continue
            if connection is None:
                source = _encode_source(rows, quoted)
            else:
                database, id = split_key(document.id)
                source = _add_source(_encode_source(rows, _encode(id)), f"{connection}/{database}")
            if deleted_field and _has_field(source, deleted_field):
                raise ValueError(f"a field {deleted_field} would make it a deleted one")  # noqa: TRY301
            made.append(Operation(document.id, version, False, _INDEX % (quoted, version, source)))
        except (PermanentError, ValueError, RecursionError) as error:
            dead[document.id] = f"its row can't be written: {error}"
    return made, dead


def find_gone(documents: Sequence[DocumentRows]) -> set[str]:
    """Return the ids of documents without rows in any output: with `deletes: mark` these are kept."""
    return {document.id for document in documents if not document.has_rows}


def encode_removal(id: str, version: int, *, deleted_at_ms: int | None) -> Operation:
    """Return the removal of a document; it leaves a tombstone if there is a time for it."""
    quoted = _encode(id)
    if deleted_at_ms is None:
        return Operation(id, version, True, _DELETE % (quoted, version))
    return Operation(id, version, True, _TOMBSTONE % (quoted, version, deleted_at_ms))


def encode_mark(removal: Operation, source: Mapping[str, Any], *, deleted_at_ms: int) -> Operation:
    """Return the operation that, in place of a removal, keeps the document and marks it with the time.

    Args:
        removal: with the version of the deletion.
        source: the document as it is stored; if it is marked, the first time stays.
        deleted_at_ms: the time.
    """
    moment = datetime.fromtimestamp(deleted_at_ms / 1000, UTC)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    row = run_deeply(lambda: strict_json.encode({MARKED_AT: text, **source}))
    body = _MARK % (_encode(removal.id), removal.write_version, row)
    return Operation(removal.id, removal.write_version, True, body, marks=True)


def encode_purge(id: str, version: int) -> Operation:
    """Return the removal of an expired tombstone, unless something newer has come."""
    return Operation(id, version, True, _PURGE % (_encode(id), version))


def cut_requests(made: Sequence[Operation], max_bytes: int) -> Iterator[Sequence[Operation]]:
    """Yield requests of at most `max_bytes`; a larger operation goes alone."""
    start = size = 0
    for n, operation in enumerate(made):
        if n > start and (size + len(operation.body) > max_bytes or n - start >= MAX_OPERATIONS):
            yield made[start:n]
            start, size = n, 0
        size += len(operation.body)
    if start < len(made):
        yield made[start:]


def _encode_source(rows: Sequence[Row], quoted_id: bytes) -> bytes:
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows, but an index holds at most one row of a document")
    (row,) = rows
    if not isinstance(row, msgspec.Raw):
        return strict_json.encode({k: v for k, v in row.items() if k != "_id"} if "_id" in row else row)
    raw = bytes(row)
    start = b'{"_id":%b,' % quoted_id
    if raw.startswith(start) and b"\n" not in raw:
        return b"{" + raw[len(start) :]
    fields = run_deeply(lambda: _decode_fields(raw))  # values stay raw: numbers keep every digit
    fields.pop("_id", None)
    return _encode(fields).replace(b"\n", b" ")  # between values only: a string can't hold one


def _has_field(source: bytes, name: str) -> bool:
    """Return whether a document has a field; one of that name deeper inside does not count."""
    return bool(_OWN_FIELD.search(source)) and name in run_deeply(lambda: _decode_fields(source))


def _add_source(body: bytes, source: str) -> bytes:
    """Return a document with the source in a field of its own."""
    if body == b"{}":
        return b'{"%b":%b}' % (SOURCE.encode(), _encode(source))
    return b'{"%b":%b,%b' % (SOURCE.encode(), _encode(source), body[1:].lstrip())


def _describe_long_id(id: str) -> str | None:
    size = len(id.encode())
    return f"its id has {size} bytes, an index takes {MAX_ID_BYTES}" if size > MAX_ID_BYTES else None
