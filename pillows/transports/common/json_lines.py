r"""The lines that append-only targets write: one JSON object per row, ended by `\n`.

    {"output":"cases","_id":"a","_rev":"3-x","_version":1099511627779,"doc":{"name":"Ada"}}
    {"output":"cases","_id":"b","_rev":"2-y","_version":1099511627778,"_deleted":true}

`_version` is the write version (`epoch << 40 | version`): of all lines with the same output and
id, the one with the highest version counts; the others are older states or repetitions after a failure.
A document with several rows has a
line for each, numbered: `"_row":0,"_rows":2`. A line with `_deleted` says that the document has no
row in that output: it lost them, or never had any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pillows import strict_json
from pillows.errors import PermanentError
from pillows.models import Batch, DocumentRows, Row, newest, write_version
from pillows.strict_json import run_deeply


def encode_batch(batch: Batch, outputs: Iterable[str]) -> tuple[list[Mapping[str, bytes]], Mapping[str, str]]:
    """Return the lines of each document that can be written, and why the others cannot.

    A document without rows has its line in a first pass too: nothing here remembers whether it had
    rows before it was deleted.

    Returns:
        For each document output name -> its lines; and id -> reason of the others.
    """
    encoded: list[Mapping[str, bytes]] = []
    dead: dict[str, str] = {}
    for document in newest(batch.documents):
        try:
            version = write_version(batch.epoch, document.leaf_version)
            encoded.append({output: encode_document(output, document, version) for output in outputs})
        except PermanentError as error:
            dead[document.id] = str(error)
    return encoded, dead


def preview_batch(batch: Batch, outputs: Iterable[str]) -> str:
    """Return the lines of a batch as text.

    Raises:
        PermanentError: a row has no JSON form.
    """
    encoded, dead = encode_batch(batch, outputs)
    if dead:
        raise PermanentError("; ".join(f"{id}: {reason}" for id, reason in dead.items()))
    return "".join(lines.decode() for document in encoded for lines in document.values())


def encode_document(output: str, document: DocumentRows, version: int) -> bytes:
    """Return the lines of one document in one output.

    Raises:
        PermanentError: a row has no JSON form.
    """
    rows: Sequence[Row] = document.rows.get(output, ())
    head = msgspec.json.encode(
        {"output": output, "_id": document.id, "_rev": document.rev, "_version": version}
    )[:-1]
    if not rows:
        return head + b',"_deleted":true}\n'
    if len(rows) == 1:
        return b'%b,"doc":%b}\n' % (head, _on_one_line(rows[0]))
    return b"".join(
        b'%b,"_row":%d,"_rows":%d,"doc":%b}\n' % (head, number, len(rows), _on_one_line(row))
        for number, row in enumerate(rows)
    )


def _on_one_line(row: Row) -> bytes:
    text = strict_json.encode(row)
    if b"\n" not in text and b"\r" not in text:
        return text
    # A source may send indented documents. Within strings a line break is always escaped, so these
    # are white space.
    try:
        return run_deeply(lambda: msgspec.json.format(text, indent=-1))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PermanentError(f"The document is not valid JSON: {error}.") from error
