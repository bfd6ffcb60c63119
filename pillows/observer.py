"""How the packages tell what happens: documented hooks that do nothing.

Logs are an observer, metrics will be another; `pillows` imports neither. A hook must return at
once and must not raise. `tail` is always the key of the tail
that it happened to.
"""

from __future__ import annotations

from collections.abc import Mapping

from checkpoints import Checkpoint, TailKey


class Observer:
    """Base class of observers. Implement whatever subset of hooks you like."""

    def change(self, tail: TailKey, *, count: int, kept: int) -> None:
        """Called after `count` changes went through filter and transform, `kept` of them kept."""

    def batch(self, tail: TailKey, *, documents: int, refused: int, dead: int, seconds: float) -> None:
        """Called after every transport has acknowledged a batch."""

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Called before waiting for another try at `where` (the source, or a transport's name)."""

    def rewind(self, tail: TailKey, *, reason: str) -> None:
        """Called when the source seems to serve again what was read before."""

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:
        """Called after a document was stored as a dead letter."""

    def checkpoint(self, tail: TailKey, *, checkpoint: Checkpoint, seconds: float) -> None:
        """Called after a checkpoint was saved durably."""

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        """Called when a pillow changes its state."""

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Called for what an operator should see but needs no action by the daemon."""

    def notice(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Called for what happens rarely and is good to know: a start, a completed pass."""
