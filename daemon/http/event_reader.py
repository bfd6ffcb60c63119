"""Read server-sent events (HTML Living Standard, 9.2.6), as far as pillowd sends them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct


class Message(Struct, frozen=True, kw_only=True):
    """One message.

    Attributes:
        event: its type; empty for a comment, which says that the stream is open.
        data: its JSON value; None for a comment.
        id: the `Last-Event-ID` with which a client continues after this event.
    """

    event: str
    data: Any
    id: str = ""


def read_messages(lines: Iterable[bytes]) -> Iterator[Message]:
    """Yield the messages of a stream; a comment as a message without event.

    Args:
        lines: of the body, each with its line break. A message that is cut is not yielded.

    Raises:
        ValueError: the data is not JSON.
    """
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.decode().rstrip("\r\n")
        name, _, value = line.partition(":")
        if line and not name:
            yield Message(event="", data=None)
        elif line:
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                event, id = fields.get("event", "message"), fields.get("id", "")
                yield Message(event=event, data=json.loads(fields["data"]), id=id)
            fields = {}
