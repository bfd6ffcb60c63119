"""Documents that can never be written as they are: stored durably, so that the others go on.

A letter says what failed where and why, never what the document holds. It is on disk before the
checkpoint passes its change, is replaced when the document fails again, and is cleared when a later
version of the document is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from checkpoints import Tracker
from pillows.clock import Clock, SystemClock
from pillows.errors import FatalError
from pillows.fanout import Delivery
from pillows.models import Change, Document, DocumentRows

#: The transport of a letter whose document failed before any transport saw it.
PIPELINE = "-"

#: Longer reasons are cut: an error may quote the document.
MAX_ERROR_CHARACTERS = 500


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One document that could not be written.

    Attributes:
        pillow: the tail's key as text.
        transport: which transport refused it; `PIPELINE` where filter or transform failed.
        id, rev, version: the document's.
        stage: `filter`, `trigger`, `transform` or `transport`.
        error: why, in the words of whoever refused it.
        at: wall-clock seconds of the last failure.
        first_at: wall-clock seconds of the first.
        failures: how often it failed.
    """

    pillow: str
    transport: str
    id: str
    rev: str
    version: int
    stage: str
    error: str
    at: float = 0.0
    first_at: float = 0.0
    failures: int = 1


def letter_of(pillow: str, document: Change | Document, stage: str, error: Exception) -> DeadLetter:
    """The letter of a document that failed before any transport saw it."""
    return DeadLetter(
        pillow=pillow,
        transport=PIPELINE,
        id=document.id,
        rev=document.rev,
        version=document.version,
        stage=stage,
        error=f"{type(error).__name__}: {error}",
    )


class DeadLetters:
    """The dead letters of all tails of a daemon.

    Args:
        path: the folder of the store.
        max_letters: when so many are stored the pillow stops: full means stop, never drop.
        clock: tells the time of a failure.
    """

    def __init__(self, path: Path, *, max_letters: int = 100_000, clock: Clock | None = None) -> None:
        self._tracker = Tracker(path)
        self._max_letters = max_letters
        self._clock = clock or SystemClock()
        self._ids: dict[str, set[tuple[str, str]]] = {}
        for pillow, transport, id in self._tracker:
            self._ids.setdefault(pillow, set()).add((transport, id))

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Stores letters; on disk when it returns.

        Raises:
            FatalError: there is no room for more.
            StoreWriteError: the disk refused them.
        """
        if len(self._tracker) + len(letters) > self._max_letters:
            raise FatalError(
                f"There are {len(self._tracker)} dead letters, {self._max_letters} at most.",
                remedy="mend the cause, then `pillowd dead-letter retry` or `discard`",
            )
        for letter in letters:
            self._put(letter)
        self._tracker.sync()

    def clear(
        self, pillow: str, documents: Sequence[DocumentRows], deliveries: Mapping[str, Delivery]
    ) -> None:
        """Forgets letters of documents that were now written, in this or a later version."""
        known = self._ids.get(pillow)
        if not known:
            return
        written = {document.id: document.version for document in documents}
        cleared = [
            (transport, id)
            for transport, id in known
            if id in written
            and not (transport in deliveries and id in deliveries[transport].dead)
            and self._tracker[pillow, transport, id]["version"] <= written[id]
        ]
        self.discard(pillow, cleared)

    def discard(self, pillow: str, letters: Iterable[tuple[str, str]]) -> int:
        """Forgets letters, named by transport and id. Returns how many there were."""
        known = self._ids.get(pillow, set())
        gone = [letter for letter in letters if letter in known]
        for transport, id in gone:
            del self._tracker[pillow, transport, id]
            known.discard((transport, id))
        if gone:
            self._tracker.sync()
        return len(gone)

    def count(self, pillow: str) -> int:
        """How many letters a tail has."""
        return len(self._ids.get(pillow, ()))

    def of(self, pillow: str) -> list[DeadLetter]:
        """The letters of a tail, oldest first."""
        known = self._ids.get(pillow, ())
        letters = [self._get(pillow, transport, id) for transport, id in known]
        return sorted(letters, key=lambda letter: letter.first_at)

    def close(self) -> None:
        """Closes the store."""
        self._tracker.close()

    def _put(self, letter: DeadLetter) -> None:
        now = self._clock.wall()
        key = (letter.pillow, letter.transport, letter.id)
        fields: dict[str, Any] = {
            "rev": letter.rev,
            "version": letter.version,
            "stage": letter.stage,
            "error": letter.error[:MAX_ERROR_CHARACTERS],
            "at": now,
        }
        self._tracker.add_if_absent(key)
        known = dict(self._tracker[key])
        history = {"first_at": known.get("first_at", now), "failures": known.get("failures", 0) + 1}
        self._tracker[key] = known | fields | history
        self._ids.setdefault(letter.pillow, set()).add((letter.transport, letter.id))

    def _get(self, pillow: str, transport: str, id: str) -> DeadLetter:
        entry = {k: v for k, v in self._tracker[pillow, transport, id].items() if not k.startswith("_")}
        return DeadLetter(pillow=pillow, transport=transport, id=id, **entry)
