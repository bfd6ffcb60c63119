"""A request to the API, and its answer: what the HTTP server and the command on the files have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct, field

JSON = "application/json"
PROBLEM = "application/problem+json"
EVENTS = "text/event-stream"

#: Largest body of a request.
MAX_BODY_BYTES = 64 * 1024


class Answer(Struct, frozen=True, kw_only=True):
    """The answer of a handler.

    Attributes:
        status: the HTTP status.
        body: JSON values; text or bytes of the type `media_type`; or an iterator of bytes, which is closed
            when the client goes away.
        headers: more headers.
        media_type: the type of the body.
        is_stream: whether an iterator may take minutes, and so needs one of the few streams.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON
    is_stream: bool = False

    @property
    def pieces(self) -> Iterator[bytes] | None:
        """The body, if it comes in pieces."""
        return self.body if isinstance(self.body, Iterator) else None
