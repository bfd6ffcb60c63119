"""Limit the number of connections of one listener, so that hostile clients cannot keep others out.

If there are too many, the one that has made the server wait longest is closed. So a client that sends half a
request, or does not read its answer, loses its connection. A connection whose request is being answered
stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from msgspec import Struct


class Slot(Struct, eq=False):
    """One admitted connection.

    Attributes:
        greenlet: serves the connection.
        working: whether its request is being answered.
    """

    greenlet: Any
    working: bool = False


class Connections:
    """Admits connections.

    Args:
        limit: most connections at once, not counting streams.
        stream_limit: most streams at once.
    """

    def __init__(self, limit: int = 48, stream_limit: int = 16) -> None:
        self._limit = limit
        self._stream_limit = stream_limit
        self._slots: dict[Slot, None] = {}  # those that have made us wait longest first
        self._streams: set[Slot] = set()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def streams(self) -> int:
        """The number of streams."""
        return len(self._streams)

    @contextmanager
    def admit(self) -> Iterator[Slot | None]:
        """Admit the connection that this greenlet serves; None if all requests are being answered."""
        slot = Slot(gevent.getcurrent())
        self._slots[slot] = None
        try:
            if len(self._slots) <= self._limit or self._cut_one(but=slot):
                yield slot
            else:
                yield None
        finally:
            self._slots.pop(slot, None)
            self._streams.discard(slot)

    def wait_for(self, slot: Slot) -> None:
        """Note that the server now waits for the client."""
        slot.working = False
        if slot in self._slots:
            del self._slots[slot]
            self._slots[slot] = None

    def become_stream(self, slot: Slot) -> bool:
        """Move a connection to the streams. Return whether there was room."""
        if len(self._streams) >= self._stream_limit:
            return False
        self._slots.pop(slot, None)
        self._streams.add(slot)
        return True

    def _cut_one(self, *, but: Slot) -> bool:
        for slot in self._slots:
            if not slot.working and slot is not but:
                del self._slots[slot]
                slot.greenlet.kill(block=False)
                return True
        return False
