"""Server-sent events as pillowd sends them."""

from __future__ import annotations

import pytest

from daemon.http.event_reader import Message, read_messages
from daemon.streams.senders import format_message


def test_messages_and_comments_are_read() -> None:
    sent = b"retry: 1000\n\n" + format_message("status", b'{"a":"b: c"}', id="x-1") + b": still here\n\n"
    sent += format_message("rows", b"[1]") + b"event: cut\ndata: {"
    assert list(read_messages(sent.splitlines(keepends=True))) == [
        Message(event="status", data={"a": "b: c"}, id="x-1"),
        Message(event="", data=None),
        Message(event="rows", data=[1]),
    ]


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        list(read_messages([b"data: {\n", b"\n"]))
