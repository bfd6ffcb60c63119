"""Requests to write documents of one pillow again: records in the topic of its database, among the changes.

Whoever has the partition writes its documents, and it has read all changes before the request. The keys are
their own, so a compaction never drops a change for a request.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

#: What the key of a request begins with. No document's id does: it is UTF-8.
_PREFIX = b"\xff"
#: Between a pillow's name, which never holds it, and a document's id.
_END = b"\0"


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of a request."""

    epoch: int = 0


class Request(Struct, frozen=True):
    """A request.

    Attributes:
        pillow: for which pillow it is; the others ignore it.
        id: the document to look at; "" for none.
        epoch: the epoch under which this partition's documents are written from now on, at least.
    """

    pillow: str
    id: str = ""
    epoch: int = 0


def is_request(key: bytes) -> bool:
    """Return whether a record is a request."""
    return key.startswith(_PREFIX)


def encode_request(request: Request) -> tuple[bytes, bytes]:
    """Return the key and the value of a request's record."""
    key = _PREFIX + request.pillow.encode() + _END + request.id.encode()
    return key, msgspec.msgpack.encode(_Value(epoch=request.epoch))


def decode_request(key: bytes, value: bytes) -> Request:
    """Return the request of a record.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError: it is none.
    """
    pillow, _, id = key.removeprefix(_PREFIX).partition(_END)
    epoch = msgspec.msgpack.decode(value, type=_Value).epoch
    return Request(pillow=pillow.decode(), id=id.decode(), epoch=epoch)
