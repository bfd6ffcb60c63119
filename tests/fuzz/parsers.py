"""Every parser that faces a server, a file or a user: for any bytes, it returns, or raises what it promises.

Each function gets one input. What it lets through is a defect.
"""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import Seq, StoreError
from checkpoints.errors import MalformedMessage, MessageTooLarge
from checkpoints.journal.records import decode_value, scan_journal
from checkpoints.pod.codec import encode_key, parse_line, value_of
from checkpoints.pod.metadata import StoreMetadata
from checkpoints.rpc.framing import encode as encode_message
from checkpoints.rpc.framing import receive
from daemon.cli.exit_codes import CommandError
from daemon.cli.legacy_checkpoints import SYSTEMS, find_position
from daemon.config.dump import format_config
from daemon.config.load import load
from daemon.config.problems import ConfigErrors
from daemon.printable import printable_lines
from pillows.couch.bulk_get import parse_leaf
from pillows.couch.database_url import parse_database_url
from pillows.couch.errors import parse_error_body
from pillows.errors import PillowError
from pillows.strict_json import NotJSONError, encode
from tests.fuzz import http_head, lines
from tests.support.configuration import ENVIRON, GOOD


def parse_json_texts(data: bytes) -> None:
    """Read CouchDB's answers to `_bulk_get` and its error responses, and encode a decoded document."""
    str(parse_error_body(data))
    with contextlib.suppress(PillowError, msgspec.DecodeError, ValueError, RecursionError):
        parse_leaf(msgspec.Raw(data))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        text = encode(document)
    except NotJSONError:
        return
    assert json.loads(text) == document, "a document that is encoded is the same"


def parse_configuration(data: bytes) -> None:
    """Load a configuration; each mistake has a remedy and one line."""
    file = _folder() / "pillowd.yaml"
    file.write_bytes(data)
    try:
        format_config(load(file, ENVIRON))
    except ConfigErrors as errors:
        raised = errors
    else:
        return
    assert raised.problems
    assert all(each.message and each.remedy for each in raised.problems)
    assert len(str(raised).encode().splitlines()) == len(raised.problems) + 1


def parse_token(data: bytes) -> None:
    """Read a position; what is stored is sent back as it came."""
    try:
        value = msgspec.json.decode(data)
        seq = Seq.of(value)
    except (TypeError, ValueError, RecursionError):
        return
    assert seq.value == value
    assert seq.query.isascii()
    assert not set(seq.query) & set(" &?#\n")
    printable_lines(str(seq))


def parse_url(data: bytes) -> None:
    """Read the URL of a database from a command line; an error does not quote its password."""
    with contextlib.suppress(ConfigErrors, PillowError):
        parse_database_url(data.decode(errors="surrogateescape"))


def parse_journal(data: bytes) -> None:
    """Read the journal of checkpoints; every entry that is trusted can be decoded."""
    for entry in scan_journal(data).entries.values():
        if entry is not None:
            decode_value(entry)


def parse_store(data: bytes) -> None:
    """Read lines and description of a store, such as the dead letters."""
    with contextlib.suppress(StoreError):
        StoreMetadata.decode(data)
    for line in data.split(b"\n"):
        try:
            key = parse_line(line)
        except ValueError:
            continue
        encode_key(key)
        value_of(line)


def parse_older_checkpoint(data: bytes) -> None:
    """Find the position in what an older system kept; it is a token, or the command says what is wrong."""
    text = data.decode(errors="replace")
    for system in SYSTEMS:
        with contextlib.suppress(CommandError):
            Seq.of(find_position(system, text, None))


def parse_messages(data: bytes) -> None:
    """Read messages from a socket, as the admin socket and shared stores do, to the end or to a wrong one."""
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.suppress(MalformedMessage):
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        while (message := _receive_next(ours)) is not None:
            with contextlib.suppress(ValueError):  # JSON has no NaN
                encode_message(message)


def _receive_next(connection: socket.socket) -> dict[str, Any] | None:
    while True:
        with contextlib.suppress(MessageTooLarge):
            return receive(connection)


@cache
def _folder() -> Path:
    """Return a folder of this process; whoever started it removes it."""
    return Path(tempfile.mkdtemp(prefix="pillowd-fuzz-"))


Parse = Callable[[bytes], None]
GOLDEN = Path(__file__).parents[1] / "golden" / "state"
_LEAF = b'{"_id":"a","_rev":"1-a","n":[1,null,{"x":"\\u00fc"}],"_attachments":{"f":{"length":3}}}'


def _read(*names: str) -> list[bytes]:
    return [(GOLDEN / name).read_bytes() for name in names]


#: Name -> the parser, and valid inputs to begin with.
PARSERS: dict[str, tuple[Parse, Sequence[bytes]]] = {
    "lines": (lines.one, lines.SEEDS),
    "json": (parse_json_texts, [_LEAF, b'{"error":"not_found","reason":"missing"}', b"[1e400,-0.0,1]"]),
    "yaml": (parse_configuration, [GOOD.encode(), b"connections: &a {x: *a}\n", b"- !!python/x y\n"]),
    "token": (parse_token, [b'"12-g1AAAA"', b"7", b'[7,"g1A"]', b'"\\ud83d\\ude00 &?#"']),
    "url": (parse_url, [b"http://admin:s3cret@127.0.0.1:5984/a%2Fb", b"https://[::1]:6984/prefix/db"]),
    "journal": (parse_journal, _read("checkpoints/journal")),
    "http": (http_head.parse_request, http_head.SEEDS),
    "older": (
        parse_older_checkpoint,
        [
            b"61-g1AAAACReJzLYWBgYMpg\n",
            b"seq,pending,updated_at,source\n12-abc,3,2024-09-02,couchdb:5984/medic\n",
            b'[{"model": "m", "pk": "user", "fields": {"sequence": "7-x", "sequence_format": "text"}}]',
        ],
    ),
    "message": (parse_messages, [b"\x00\x00\x00\x02{}" + b'\x00\x00\x00\x0a{"a": "b"}']),
    "store": (parse_store, _read("dead-letters/.meta", "dead-letters/0.json", "checkpoints/.meta")),
}
