"""The dead letters of one tail, for its writer."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from checkpoints import TailKey
from pillows.dead_letters.dead_letter import DeadLetter, ErrorOptions
from pillows.dead_letters.store import DeadLetters
from pillows.observer import Observer


class TailDeadLetters(Struct, frozen=True, kw_only=True):
    """The dead letters of one tail, and the facts added to each.

    Attributes:
        tail: the tail.
        store: the dead letters of all tails.
        options: the tail's limits.
        config: digest of the filter, transform and transports that fail documents.
        observer: receives each dead letter once it is stored.
    """

    tail: TailKey
    store: DeadLetters
    options: ErrorOptions
    config: str
    observer: Observer

    def add(self, dead_letters: Sequence[DeadLetter]) -> None:
        """Store dead letters; they are on disk after the next `DeadLetters.sync`.

        Raises:
            FatalError: there is no room for more.
        """
        self.store.add(dead_letters, self.options, self.config)
        for each in dead_letters:
            self.observer.dead_letter(
                self.tail, transport=each.transport, id=each.id, stage=each.stage, error=each.error
            )
