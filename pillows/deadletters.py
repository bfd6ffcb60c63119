"""Documents that can never be written as they are: stored durably, so that the others go on.

A letter says what failed where and why, never what the document holds. It is on disk before the
checkpoint passes its change, is replaced when the document fails again, and is cleared when a later
version of the document is written. Until it has been tried often enough it is due for another try
after a growing pause (`pillows.redelivery`); then it is left to the operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
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

#: The pause before the first further try; it doubles with every one.
FIRST_PAUSE_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterPolicy:
    """How one tail keeps its letters.

    Attributes:
        max_letters: so many are kept; one more stops the tail, since none is ever dropped.
        max_tries: how often a document is tried, the first time included.
        config: digest of the filter, transform and transports that failed.
    """

    max_letters: int = 100_000
    max_tries: int = 5
    config: str = ""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One document that could not be written.

    Attributes:
        pillow: the tail's key as text.
        transport: which transport refused it; `PIPELINE` where filter or transform failed.
        id, rev, version: the document's.
        stage: `filter`, `trigger`, `transform` or `transport`.
        error: why, in the words of whoever refused it.
        seq: the position behind its change; empty where the feed gave none, or at a further try.
        config: as in `LetterPolicy`, of the last failure.
        at: wall-clock seconds of the last failure.
        first_at: wall-clock seconds of the first.
        failures: how often the document failed, in whatever version.
        tries: how often this version was tried since the last `retry` of an operator.
        aborted: it is not tried again by itself.
        next_retry_at: wall-clock seconds of the next try.
    """

    pillow: str
    transport: str
    id: str
    rev: str
    version: int
    stage: str
    error: str
    seq: str = ""
    config: str = ""
    at: float = 0.0
    first_at: float = 0.0
    failures: int = 1
    tries: int = 1
    aborted: bool = False
    next_retry_at: float = 0.0


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


def pause_seconds(tries: int) -> float:
    """How long to wait before another try, after so many."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries - 1, 30))


class DeadLetters:
    """The dead letters of all tails of a daemon.

    Args:
        path: the folder of the store.
        clock: tells the time of a failure.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        # Written when told to alone: by itself it would write, and give way, with a letter half made.
        self._tracker = Tracker(path, sync_at=None, sync_interval=None)
        self._clock = clock or SystemClock()
        # Tail -> (transport, id) -> when it is due: no scan of the store finds it.
        self._due: dict[str, dict[tuple[str, str], float]] = {}
        self._handed_out: dict[str, dict[tuple[str, str], float]] = {}
        for pillow, transport, id in self._tracker:
            self._note((pillow, transport, id))

    def add(self, letters: Sequence[DeadLetter], policy: LetterPolicy | None = None) -> None:
        """Stores letters of one tail; on disk when it returns.

        Raises:
            FatalError: there is no room for more.
            StoreWriteError: the disk refused them; they are kept in memory until `sync`.
        """
        if not letters:
            return
        policy = policy or LetterPolicy()
        known = self._due.setdefault(letters[0].pillow, {})
        fresh = {(letter.transport, letter.id) for letter in letters} - known.keys()
        if len(known) + len(fresh) > policy.max_letters:
            raise FatalError(
                f"There are {len(known)} dead letters, {policy.max_letters} at most.",
                remedy="mend the cause, then `pillowd dead-letter retry` or `discard`",
            )
        for letter in letters:
            self._put(letter, policy)
        self.sync()

    def clear(
        self, pillow: str, documents: Sequence[DocumentRows], deliveries: Mapping[str, Delivery]
    ) -> None:
        """Forgets letters of documents that were now written, in this or a later version."""
        known = self._due.get(pillow)
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

    def due(self, pillow: str, *, at_most: int) -> list[DeadLetter]:
        """Letters of a tail whose document should be tried again now.

        They are not due any more until they are added again, or `take_back` is called.
        """
        known = self._due.get(pillow, {})
        now = self._clock.wall()
        due = [letter for letter, at in known.items() if at <= now][:at_most]
        for letter in due:
            self._handed_out.setdefault(pillow, {})[letter] = known[letter]
            known[letter] = inf
        return [self._get(pillow, *letter) for letter in due]

    def take_back(self, pillow: str) -> None:
        """What was handed out as due and has neither failed again nor been cleared is due again."""
        known = self._due.get(pillow, {})
        for letter, at in self._handed_out.pop(pillow, {}).items():
            if known.get(letter) == inf:
                known[letter] = at

    def postpone(self, letters: Iterable[DeadLetter], seconds: float) -> None:
        """They could not be tried: they are due again after so long."""
        for letter in letters:
            known = self._due.get(letter.pillow, {})
            if (letter.transport, letter.id) in known:
                known[letter.transport, letter.id] = self._clock.wall() + seconds

    def retry(self, pillow: str, letters: Iterable[tuple[str, str]]) -> int:
        """Makes letters, named by transport and id, due at once, as if never tried. Returns how many."""
        known = self._due.get(pillow, {})
        revived = [letter for letter in letters if letter in known]
        for transport, id in revived:
            fields = {"_tries": 0, "_aborted": False, "next_retry_at": 0.0}
            self._tracker.amend((pillow, transport, id), fields)
            self._note((pillow, transport, id))
        if revived:
            self.sync()
        return len(revived)

    def lower(self, letter: DeadLetter, version: int) -> None:
        """The document has gone back to that version in the source, which is to clear the letter then."""
        self._tracker.amend((letter.pillow, letter.transport, letter.id), {"version": version})

    def discard(self, pillow: str, letters: Iterable[tuple[str, str]]) -> int:
        """Forgets letters, named by transport and id. Returns how many there were."""
        known = self._due.get(pillow, {})
        gone = [letter for letter in letters if letter in known]
        for transport, id in gone:
            del self._tracker[pillow, transport, id]
            del known[transport, id]
            self._handed_out.get(pillow, {}).pop((transport, id), None)
        if gone:
            self.sync()
        return len(gone)

    def sync(self) -> None:
        """Puts on disk what it refused when that was changed.

        Raises:
            StoreWriteError: it still does.
        """
        self._tracker.sync()

    def count(self, pillow: str) -> int:
        """How many letters a tail has."""
        return len(self._due.get(pillow, ()))

    def of(self, pillow: str) -> list[DeadLetter]:
        """The letters of a tail, oldest first."""
        letters = [self._get(pillow, transport, id) for transport, id in self._due.get(pillow, ())]
        return sorted(letters, key=lambda letter: letter.first_at)

    def close(self) -> None:
        """Closes the store."""
        self._tracker.close()

    def _put(self, letter: DeadLetter, policy: LetterPolicy) -> None:
        now = self._clock.wall()
        key = (letter.pillow, letter.transport, letter.id)
        self._tracker.add_if_absent(key)
        known = dict(self._tracker[key])
        # Another version has its own chances: what was wrong may be mended in it.
        tries = known["_tries"] + 1 if known.get("version") == letter.version else 1
        fields: dict[str, Any] = {
            "rev": letter.rev,
            "version": letter.version,
            "stage": letter.stage,
            "error": letter.error[:MAX_ERROR_CHARACTERS],
            "seq": letter.seq,
            "config": policy.config,
            "at": now,
            "first_at": known.get("first_at", now),
            "failures": known.get("failures", 0) + 1,
            "next_retry_at": now + pause_seconds(tries),
            "_tries": tries,
            "_aborted": tries >= policy.max_tries,
        }
        self._tracker[key] = known | fields
        self._note(key)

    def _note(self, key: tuple[str, str, str]) -> None:
        pillow, transport, id = key
        entry = self._tracker[key]
        at = inf if entry["_aborted"] else entry.get("next_retry_at", 0.0)
        self._handed_out.get(pillow, {}).pop((transport, id), None)
        self._due.setdefault(pillow, {})[transport, id] = at

    def _get(self, pillow: str, transport: str, id: str) -> DeadLetter:
        entry = self._tracker[pillow, transport, id]
        fields = {k: v for k, v in entry.items() if not k.startswith("_")}
        fields |= {"tries": entry["_tries"], "aborted": entry["_aborted"]}
        return DeadLetter(pillow=pillow, transport=transport, id=id, **fields)
