"""Refuse a request before it reaches the application."""

from __future__ import annotations

import json
from http.client import responses

from daemon.http.messages import PROBLEM


class RefusedError(Exception):
    """A request that is refused before it reaches the application.

    Attributes:
        status: the HTTP status.
        detail: why.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def format_refusal(error: RefusedError) -> bytes:
    """Return the whole answer to a refused request; it closes the connection."""
    reason = responses.get(error.status, "Refused")
    problem = {
        "type": "urn:pillowd:error:invalid-request",
        "title": reason,
        "status": error.status,
        "detail": error.detail,
    }
    body = json.dumps(problem).encode()
    head = (
        f"HTTP/1.1 {error.status} {reason}\r\nContent-Type: {PROBLEM}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
