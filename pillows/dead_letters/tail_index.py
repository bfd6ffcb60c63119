"""Find the dead letters of a tail, and those that are due, without reading the store. In memory only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from gevent.lock import BoundedSemaphore

from pillows.dead_letters.dead_letter import LONGEST_RETRY_SECONDS


def is_due(at: float, now: float) -> bool:
    """Return whether a dead letter is due for a retry, in wall-clock seconds; one that was claimed is not.

    No wait is longer than `LONGEST_RETRY_SECONDS`, so a later time was set by a clock that ran ahead.
    """
    return at <= now or now + LONGEST_RETRY_SECONDS < at < inf


class TailIndex:
    """The dead letters of one tail.

    Attributes:
        due_at: (transport, id) -> wall-clock seconds of the next retry.
        transports: id -> the transports that the document has dead letters of.
        claimed: (transport, id) of the claimed ones -> when each was due.
        changed: number of the last change.
        unreplicated: (transport, id) of changes that the replica does not have yet -> number of the change.
        replicating: held while they are written.
        next_at: wall-clock seconds before which none is due.
        on_due: see `DeadLetters.watching`.
    """

    def __init__(self) -> None:
        self.due_at: dict[tuple[str, str], float] = {}
        self.transports: dict[str, tuple[str, ...]] = {}
        self.claimed: dict[tuple[str, str], float] = {}
        self.changed = 0
        self.unreplicated: dict[tuple[str, str], int] = {}
        self.replicating = BoundedSemaphore(1)
        self.next_at = inf
        self.on_due: Callable[[float], None] | None = None

    def transports_of(self, id: str) -> Sequence[str]:
        """Return the transports that a document has dead letters of."""
        return self.transports.get(id, ())

    def note(self, transport: str, id: str, *, due_at: float, change: int) -> None:
        """Add a dead letter, or change when it is due."""
        if (transport, id) not in self.due_at:
            self.transports[id] = (*self.transports_of(id), transport)
        self.due_at[transport, id] = due_at
        self.claimed.pop((transport, id), None)
        self.changed = change

    def forget(self, transport: str, id: str, *, change: int) -> None:
        """Remove a dead letter."""
        del self.due_at[transport, id]
        self.claimed.pop((transport, id), None)
        self.transports[id] = tuple(one for one in self.transports[id] if one != transport)
        if not self.transports[id]:
            del self.transports[id]
        self.changed = change
