r"""The lines that append-only targets write: one JSON object a row, ended by `\n`.

    {"output":"cases","_id":"a","_rev":"3-x","_version":1099511627779,"doc":{"name":"Ada"}}
    {"output":"cases","_id":"b","_rev":"2-y","_version":1099511627778,"_deleted":true}

`_version` is the guard (`epoch << 40 | version`): of several lines of one output and id the highest
counts, the others are its past or were written again after a failure. A document with any other
number of rows than one has a line for each, numbered: `"_row":0,"_rows":2`. A line with `_deleted`
says that the document has no row in that output (any more, or never had).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pillows.errors import PermanentError
from pillows.models import DocumentRows, Row
from pillows.transports.common.columns import encode


def lines(output: str, document: DocumentRows, rows: Sequence[Row], guard: int) -> bytes:
    """The lines of one document in one output.

    Raises:
        PermanentError: a row has no JSON form.
    """
    head = msgspec.json.encode(
        {"output": output, "_id": document.id, "_rev": document.rev, "_version": guard}
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
    text = encode(row)
    if b"\n" not in text and b"\r" not in text:
        return text
    # A source may hand over documents that were laid out for people; within strings a line break is
    # always escaped, so what stands here is white space.
    try:
        return msgspec.json.format(text, indent=-1)
    except msgspec.DecodeError as error:
        raise PermanentError(f"The document is no JSON: {error}.") from error
