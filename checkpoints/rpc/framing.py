"""Messages over a unix socket: four bytes of length (big-endian), then one JSON object.

A request is `{"version": 1, "call": NAME, "arguments": {...}}`. An answer is `{"result": ...}`, or
`{"error": KIND, "message": ...}`, or `{"busy": true}`: another client holds the lock, so call again. So
every answer comes soon, and a client can distinguish a busy server from a dead one.

A message has at most 1 MiB. A longer one is read to its end and refused, and the connection continues. A
length of more than 64 MiB means that the peer does not speak this protocol.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from checkpoints.errors import MalformedMessage, MessageTooLarge

VERSION = 1
MAX_BYTES = 1024 * 1024
MAX_SKIPPED_BYTES = 64 * MAX_BYTES

_LENGTH_BYTES = 4
_CHUNK_BYTES = 64 * 1024

# The standard library's JSON, as in the files: it accepts any int and any str, lone surrogates included.
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message.

    Raises:
        MessageTooLarge: the message is over 1 MiB; nothing was sent.
        TypeError, ValueError: the message is not JSON; nothing was sent.
        OSError: the connection is broken.
    """
    body = encode(message)
    connection.sendall(len(body).to_bytes(_LENGTH_BYTES, "big") + body)


def encode(message: dict[str, Any]) -> bytes:
    """Return the bytes of a message, without its length.

    Raises:
        MessageTooLarge: the message is over 1 MiB.
        TypeError, ValueError: the message is not JSON.
    """
    body = _encode(message).encode()
    if len(body) > MAX_BYTES:
        raise MessageTooLarge(f"a message of {len(body)} bytes is over the limit of {MAX_BYTES}")
    return body


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Read one message. Return None if the peer has closed the connection.

    Raises:
        MessageTooLarge: the message was over 1 MiB; the next one can be read.
        MalformedMessage: the bytes are not a message; nothing more can be read.
        OSError: the connection is broken.
    """
    header = _read(connection, _LENGTH_BYTES)
    if not header:
        return None
    size = int.from_bytes(header, "big")
    if size > MAX_SKIPPED_BYTES:
        raise MalformedMessage(f"a message cannot be {size} bytes long")
    if size > MAX_BYTES:
        _skip(connection, size)
        raise MessageTooLarge(f"a message of {size} bytes is over the limit of {MAX_BYTES}")
    try:
        message = json.loads(_read(connection, size))
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"not a message: {error}") from error
    if not isinstance(message, dict):
        raise MalformedMessage("not a message: no JSON object")
    return message


def _read(connection: socket.socket, size: int) -> bytes:
    """Read `size` bytes; return none if the connection ended before the first byte."""
    received = connection.recv(min(size, _CHUNK_BYTES)) if size else b""
    if len(received) == size or not received:
        return received
    parts, missing = [received], size - len(received)
    while missing:
        part = connection.recv(min(missing, _CHUNK_BYTES))
        if not part:
            raise MalformedMessage("the connection ended within a message")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _skip(connection: socket.socket, size: int) -> None:
    while size:
        part = connection.recv(min(size, _CHUNK_BYTES))
        if not part:
            raise MalformedMessage("the connection ended within a message")
        size -= len(part)
