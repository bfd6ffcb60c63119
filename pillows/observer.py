"""How the packages report what happens: documented hooks that do nothing.

The daemon's logs are an observer; `pillows` does not import them. A hook must return at once and must not
raise. `tail` is always the key of the tail concerned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from checkpoints import Checkpoint, TailKey


class Observer:
    """Base class of observers. Implement the hooks that you need."""

    def change(self, tail: TailKey, *, count: int, kept: int) -> None:
        """Note that `count` changes went through filter and transform, `kept` of them kept."""

    def stage(self, tail: TailKey, *, stage: str, seconds: float) -> None:
        """Note the time that a batch spent in a stage: `filter`, `fetch` or `transform`."""

    def queue(self, tail: TailKey, *, documents: int, size_bytes: int) -> None:
        """Note the documents that still wait, whenever a batch is taken for writing."""

    def in_flight(self, tail: TailKey, *, batches: int) -> None:
        """Note the batches that are being written, whenever one begins or ends."""

    def write(
        self, tail: TailKey, *, transport: str, documents: int, size_bytes: int, seconds: float
    ) -> None:
        """Note that every document of a batch is settled in one transport."""

    def batch(self, tail: TailKey, *, documents: int, refused: int, dead: int, seconds: float) -> None:
        """Note that every transport has acknowledged a batch."""

    def acknowledged(self, tail: TailKey, *, changes: int, seconds: float) -> None:
        """Note acknowledged changes, and the seconds since the oldest one arrived."""

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Note the wait before a retry of `where` (the source, or a transport's name)."""

    def rewind(self, tail: TailKey, *, reason: str) -> None:
        """Note that the source seems to serve changes again that were read before."""

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:
        """Note that a document was stored as a dead letter."""

    def checkpoint(self, tail: TailKey, *, checkpoint: Checkpoint, seconds: float) -> None:
        """Note that a checkpoint was saved durably."""

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        """Note that a tail changed its state."""

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Note an event that an operator should see; the daemon itself does nothing about it."""

    def notice(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Note a rare event of interest: a start, a completed pass."""


class CompositeObserver(Observer):
    """Calls several observers, in their order.

    Args:
        observers: the observers to call.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)


def _forward(hook: str) -> Any:
    def call_all(self: CompositeObserver, tail: TailKey, **facts: Any) -> None:
        for observer in self._observers:
            getattr(observer, hook)(tail, **facts)

    call_all.__name__ = hook
    call_all.__doc__ = getattr(Observer, hook).__doc__
    return call_all


# Each hook there is, so that a new one needs no edit here.
for _hook in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(CompositeObserver, _hook, _forward(_hook))
