"""A supervisor's view of the two tails of a pillow, without tails."""

from __future__ import annotations

from typing import Any

from checkpoints import TailKey
from pillows.runtime.status import State, TailStatus

KEY = TailKey("cases", "couch/cases")
OTHER = TailKey("cases~2", "couch/cases")


class TailStates:
    """Two live tails, which stop at once when they are held.

    Attributes:
        keys: the tails that are there.
        running: those that run.
        held: those that are held.
        deaf: those that never stop.
        pending: what the other tail says of its pending changes, each time it is asked; the last one stays.
        calls: what was asked for, in order.
    """

    def __init__(self) -> None:
        self.keys = [KEY, OTHER]
        self.running = [KEY, OTHER]
        self.held: set[TailKey] = set()
        self.deaf: set[TailKey] = set()
        self.pending: list[int | None] = [0]
        self.calls: list[str] = []

    @property
    def as_supervisor(self) -> Any:
        """Itself, where a `Supervisor` is wanted."""
        return self

    def status(self, key: TailKey) -> TailStatus:
        pending = self.pending.pop(0) if len(self.pending) > 1 else self.pending[0]
        return TailStatus(pillow=key.pillow, source=key.source, state=State.LIVE, pending=pending)

    def hold(self, key: TailKey) -> None:
        self.calls.append(f"hold {key.pillow}")
        self.held.add(key)
        if key in self.running and key not in self.deaf:
            self.running.remove(key)

    def release(self, key: TailKey) -> None:
        self.calls.append(f"release {key.pillow}")
        self.held.discard(key)

    def tick(self) -> None:
        pass
