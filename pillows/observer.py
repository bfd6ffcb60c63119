"""How the packages tell what happens: documented hooks that do nothing.

Logs are an observer, metrics will be another; `pillows` imports neither. A hook must return at once
and must not raise. `pillow` is always the tail's key (`TailKey`) as text, such as `cases@couch/cases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checkpoints import Checkpoint


class Observer:
    """Base class of observers. Implement whatever subset of hooks you like."""

    def change(self, pillow: str, *, count: int, kept: int) -> None:
        """Called after `count` changes went through filter and transform, `kept` of them kept."""

    def batch(self, pillow: str, *, documents: int, refused: int, dead: int, seconds: float) -> None:
        """Called after every transport has acknowledged a batch."""

    def retry(self, pillow: str, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Called before waiting for another try at `where` (the source, or a transport's name)."""

    def rewind(self, pillow: str, *, reason: str) -> None:
        """Called when the source seems to serve again what was read before."""

    def dead_letter(self, pillow: str, *, transport: str, id: str, stage: str, error: str) -> None:  # noqa: A002 - CouchDB's word
        """Called after a document was stored as a dead letter."""

    def checkpoint(self, pillow: str, *, checkpoint: Checkpoint, seconds: float) -> None:
        """Called after a checkpoint was saved durably."""

    def state(self, pillow: str, *, state: str, reason: str) -> None:
        """Called when a pillow changes its state."""

    def warning(self, pillow: str, *, event: str, details: Mapping[str, object]) -> None:
        """Called for what an operator should see but needs no action by the daemon."""


class Observers(Observer):
    """Tells several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)


def _fan_out(hook: str):  # type: ignore[no-untyped-def]  # one forwarding method per hook
    def tell(self: Observers, pillow: str, **facts: object) -> None:
        for observer in self._observers:  # noqa: SLF001 - our own class
            getattr(observer, hook)(pillow, **facts)

    tell.__name__ = hook
    tell.__doc__ = getattr(Observer, hook).__doc__
    return tell


for _hook in ("change", "batch", "retry", "rewind", "dead_letter", "checkpoint", "state", "warning"):
    setattr(Observers, _hook, _fan_out(_hook))
