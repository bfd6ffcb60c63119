"""One message to a topic."""

from __future__ import annotations

import msgspec

Headers = list[tuple[str, str]]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message.

    Attributes:
        id: the document.
        key: its id in UTF-8.
        topic: the topic it is sent to.
        value: its value; None for null.
        headers: its headers.
        partition: its partition; chosen by the key unless given.
    """

    id: str
    key: bytes
    topic: str
    value: bytes | None
    headers: Headers
    partition: int = -1

    @property
    def size_bytes(self) -> int:
        """The size that librdkafka compares with `message.max.bytes`: of key and value."""
        return len(self.key) + len(self.value or b"")
