"""The hash of a revision: MD5 over Erlang's external term format, as CouchDB computes it.

The same edit of the same revision has the same hash here and there, so the order of conflicting revisions,
which is that of their hashes, is the same as well.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Any

from tests.servers.couchdb.jsontext import OddFloat, dumps

ATOMS = {True: b"d\0\4true", False: b"d\0\5false", None: b"d\0\4null"}
LONGEST_STRING = 65535


def revision_hash(
    body: dict[str, Any],
    *,
    deleted: bool,
    start: int,
    parent: str,
    attachments: Sequence[tuple[str, str, bytes]] = (),
) -> str:
    """Return the second half of a new revision.

    Args:
        body: the document's members without those of CouchDB.
        deleted: whether it is a tombstone.
        start: the parent's generation, 0 without one.
        parent: the parent's hash, empty without one.
        attachments: names, types and MD5 digests, the last one first.
    """
    previous = hash_bytes(parent) if parent else 0
    try:
        content = _term(body)
    except RecursionError:  # real ones have another hash here
        content = dumps(body)
    digests = [
        tuple(part if isinstance(part, bytes) else part.encode() for part in one) for one in attachments
    ]
    head = b"\x83l\0\0\0\5" + ATOMS[deleted] + _term(start) + _term(previous)
    return hashlib.md5(head + content + _term(digests) + b"j", usedforsecurity=False).hexdigest()


def hash_bytes(text: str) -> bytes:
    """Return a hash as CouchDB keeps it: 32 hexadecimal digits as 16 bytes, anything else as it is."""
    try:
        return bytes.fromhex(text) if len(text) == 32 else text.encode()
    except ValueError:
        return text.encode()


def _term(value: Any) -> bytes:
    kind = type(value)
    if kind is str:
        data = value.encode(errors="replace")
        return _binary(data)
    if kind is bool or value is None:
        return ATOMS[value]
    if kind is int:
        return _integer(value)
    if kind is float:
        return struct.pack(">cd", b"F", value)
    if kind is dict:
        return b"h\1" + _members(value)
    if kind is list:
        return _list(value)
    if kind is tuple:
        return bytes((104, len(value))) + b"".join(map(_term, value))
    if kind is OddFloat:
        return struct.pack(">cd", b"F", value.value)
    return _binary(bytes(value))


def _binary(data: bytes) -> bytes:
    return b"m" + struct.pack(">I", len(data)) + data


def _members(value: dict[str, Any]) -> bytes:
    if not value:
        return b"j"
    pairs = (b"h\2" + _term(name) + _term(item) for name, item in value.items())
    return b"l" + struct.pack(">I", len(value)) + b"".join(pairs) + b"j"


def _list(value: list[Any]) -> bytes:
    if not value:
        return b"j"
    if len(value) <= LONGEST_STRING and all(type(item) is int and 0 <= item < 256 for item in value):
        return b"k" + struct.pack(">H", len(value)) + bytes(value)  # Erlang's strings are such lists
    return b"l" + struct.pack(">I", len(value)) + b"".join(map(_term, value)) + b"j"


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return bytes((97, value))
    if -(2**31) <= value < 2**31:
        return struct.pack(">ci", b"b", value)
    size = (abs(value).bit_length() + 7) // 8
    head = bytes((110, size)) if size < 256 else b"o" + struct.pack(">I", size)
    return head + bytes((value < 0,)) + abs(value).to_bytes(size, "little")
