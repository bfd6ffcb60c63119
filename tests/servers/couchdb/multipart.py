"""Documents that are sent as multipart/related: JSON, and the attachments that follow."""

from __future__ import annotations

import email.parser
import email.policy
from typing import Any

from tests.servers.couchdb.attachments import Take
from tests.servers.couchdb.errors import bad_request
from tests.servers.couchdb.jsontext import loads


def read_related(content_type: str, body: bytes) -> tuple[Any, Take]:
    """Return the document, and a function that returns an attachment's content by its name.

    Attachments that are not named come in the order in which the document has them.
    """
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    parts = [part for part in message.walk() if not part.is_multipart()]
    if not parts:
        raise bad_request("Invalid multipart body.")
    value = loads(_content(parts[0]))
    named = {str(part.get_filename()): _content(part) for part in parts[1:] if part.get_filename()}
    unnamed = [_content(part) for part in parts[1:] if not part.get_filename()]

    def take(name: str) -> bytes:
        if name in named:
            return named[name]
        if not unnamed:
            raise bad_request(f"Attachment {name} does not follow.")
        return unnamed.pop(0)

    return value, take


def _content(part: Any) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
