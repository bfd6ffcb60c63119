"""Documents that can never be written as they are: stored durably, so that the others go on.

A letter says what failed where and why, never what the document holds. It is on disk before the
checkpoint passes its change: not at once, since a turn of the disk for each batch with a bad document
in it cost a fifth of the throughput, but whoever saves a checkpoint calls `sync` first. It is replaced
when the document fails again, and cleared when a later version of the document is written. Until it
has been tried often enough it is due for another try after a growing pause (`pillows.runtime.redelivery`);
then it is left to the operator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import gevent
import msgspec

from checkpoints import Tracker
from pillows.clock import Clock, SystemClock
from pillows.dead_letters.dead_letter import (
    LONGEST_PAUSE_SECONDS,
    MAX_ERROR_CHARACTERS,
    PIPELINE,
    DeadLetter,
    LetterPolicy,
    pause_seconds,
)
from pillows.delivery.fanout import Delivery
from pillows.errors import FatalError
from pillows.models import DocumentRows

__all__ = ["DeadLetter", "DeadLetters"]

#: So many are read between two turns of the hub: a hundredth of a second's work.
_LETTERS_A_TURN = 200


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
        self._known: defaultdict[str, Known] = defaultdict(Known)
        self._changes = self._synced = 0
        for pillow, transport, id in self._tracker:
            self._note(pillow, transport, id, self._tracker[pillow, transport, id])

    def add(self, letters: Sequence[DeadLetter], policy: LetterPolicy | None = None) -> None:
        """Stores letters of one tail; they are on disk after the next `sync`.

        Raises:
            FatalError: there is no room for more.
        """
        if not letters:
            return
        policy = policy or LetterPolicy()
        known = self._known[letters[0].pillow]
        fresh = {(letter.transport, letter.id) for letter in letters} - known.due.keys()
        if len(known.due) + len(fresh) > policy.max_letters:
            raise FatalError(
                f"There are {len(known.due)} dead letters, {policy.max_letters} at most.",
                remedy="mend the cause, then `pillowd dead-letter retry` or `discard`",
            )
        for letter in letters:
            self._put(letter, policy)

    def clear(
        self, pillow: str, documents: Sequence[DocumentRows], deliveries: Mapping[str, Delivery]
    ) -> None:
        """Forgets letters of documents that were now written, in this or a later version.

        They are gone from the disk after the next `sync`.
        """
        known = self._known[pillow]
        if not known.due:
            return
        for document in [one for one in documents if one.id in known.transports]:
            for transport in known.transports_of(document.id):
                written = not (transport in deliveries and document.id in deliveries[transport].dead)
                stored = self._tracker[pillow, transport, document.id]["version"]
                if written and stored <= document.leaf_version:
                    self._forget(pillow, transport, document.id)

    def forget(self, pillow: str, id: str) -> None:
        """Forgets the letters of one document; they are gone from the disk after the next `sync`."""
        for transport in self._known[pillow].transports_of(id):
            self._forget(pillow, transport, id)

    def concern(self, pillow: str, documents: Iterable[DocumentRows]) -> bool:
        """Whether one of the documents has a letter of that tail."""
        known = self._known[pillow]
        return bool(known.due) and any(document.id in known.transports for document in documents)

    def unsynced(self, pillow: str) -> bool:
        """Whether letters of a tail were changed since the last `sync`."""
        return self._known[pillow].changed > self._synced

    def due(self, pillow: str, *, at_most: int) -> list[DeadLetter]:
        """Letters of a tail whose document should be tried again now.

        They are not due any more until they are added again, or `take_back` is called.
        """
        known = self._known[pillow]
        now = self._clock.wall()
        # No pause is longer, so a time beyond it was set by a clock that ran ahead.
        ahead = now + LONGEST_PAUSE_SECONDS
        due = list(islice((each for each, at in known.due.items() if at <= now or ahead < at < inf), at_most))
        for letter in due:
            known.handed_out[letter] = known.due[letter]
            known.due[letter] = inf
        return [self._get(pillow, *letter) for letter in due]

    def take_back(self, pillow: str) -> None:
        """What was handed out as due and has neither failed again nor been cleared is due again."""
        known = self._known[pillow]
        for letter, at in known.handed_out.items():
            if known.due.get(letter) == inf:
                known.due[letter] = at
        known.handed_out.clear()

    def postpone(self, letters: Iterable[DeadLetter], seconds: float) -> None:
        """They could not be tried: they are due again after so long."""
        for letter in letters:
            known = self._known[letter.pillow]
            if (letter.transport, letter.id) in known.due:
                known.due[letter.transport, letter.id] = self._clock.wall() + seconds

    def retry(self, pillow: str, letters: Iterable[tuple[str, str]]) -> int:
        """Makes letters, named by transport and id, due at once, as if never tried. Returns how many.

        Raises:
            StoreWriteError: the disk refused; they are due all the same.
        """
        known = self._known[pillow]
        revived = [letter for letter in letters if letter in known.due]
        for transport, id in revived:
            fields = {"_tries": 0, "_aborted": False, "next_retry_at": 0.0}
            self._tracker.amend((pillow, transport, id), fields)
            self._note(pillow, transport, id, fields)
        if revived:
            self.sync()
        return len(revived)

    def lower(self, letter: DeadLetter, version: int) -> None:
        """The document has gone back to that version in the source, which is to clear the letter then."""
        self._tracker.amend((letter.pillow, letter.transport, letter.id), {"version": version})

    def discard(self, pillow: str, letters: Iterable[tuple[str, str]]) -> int:
        """Forgets letters, named by transport and id. Returns how many there were.

        Raises:
            StoreWriteError: the disk refused; they are gone from memory all the same.
        """
        gone = [letter for letter in letters if letter in self._known[pillow].due]
        for transport, id in gone:
            self._forget(pillow, transport, id)
        if gone:
            self.sync()
        return len(gone)

    def sync(self) -> None:
        """Everything that was changed before is on disk when this returns.

        Raises:
            StoreWriteError: the disk refused; nothing is lost.
        """
        changes = self._changes  # of others, while the disk is waited for, nothing is said
        self._tracker.sync()
        self._synced = max(self._synced, changes)

    def ids(self, pillow: str, transport: str) -> set[str]:
        """The documents of a tail that a transport may hold in an older state: their letters say why."""
        return {id for its, id in self._known[pillow].due if its in (transport, PIPELINE)}

    def count(self, pillow: str) -> int:
        """How many letters a tail has."""
        return len(self._known[pillow].due)

    def of(self, pillow: str) -> list[DeadLetter]:
        """The letters of a tail, oldest first. The hub turns meanwhile: 100,000 of them take seconds."""
        letters = []
        for number, (transport, id) in enumerate(list(self._known[pillow].due)):
            if number % _LETTERS_A_TURN == 0:
                gevent.sleep(0)
            if (transport, id) in self._known[pillow].due:
                letters.append(self._get(pillow, transport, id))
        return sorted(letters, key=lambda letter: letter.first_at)

    def close(self) -> None:
        """Closes the store."""
        self._tracker.close()

    def _put(self, letter: DeadLetter, policy: LetterPolicy) -> None:
        now = self._clock.wall()
        key = (letter.pillow, letter.transport, letter.id)
        is_known = (letter.transport, letter.id) in self._known[letter.pillow].due
        known = dict(self._tracker[key]) if is_known else {}
        # Another version has its own chances: what was wrong may be mended in it.
        tries = known["_tries"] + 1 if known.get("version") == letter.leaf_version else 1
        fields: dict[str, Any] = {
            "rev": letter.rev,
            "version": letter.leaf_version,
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
        self._note(*key, fields)

    def _note(self, pillow: str, transport: str, id: str, entry: Mapping[str, Any]) -> None:
        at = inf if entry["_aborted"] else entry.get("next_retry_at", 0.0)
        self._changes += 1
        self._known[pillow].note(transport, id, due_at=at, change=self._changes)

    def _forget(self, pillow: str, transport: str, id: str) -> None:
        del self._tracker[pillow, transport, id]
        self._changes += 1
        self._known[pillow].forget(transport, id, change=self._changes)

    def _get(self, pillow: str, transport: str, id: str) -> DeadLetter:
        entry = self._tracker[pillow, transport, id]
        fields = {k: v for k, v in entry.items() if not k.startswith("_")}
        fields |= {"tries": entry["_tries"], "aborted": entry["_aborted"]}
        fields |= {"pillow": pillow, "transport": transport, "id": id}
        return msgspec.convert(fields, DeadLetter)


class Known:
    """Which letters one tail has, found without looking through the store.

    Attributes:
        due: (transport, id) -> wall-clock seconds when it is tried again.
        transports: id -> whose letters the document has.
        handed_out: (transport, id) -> when it had been due, of those that are being tried.
        changed: number of the last change.
    """

    def __init__(self) -> None:
        self.due: dict[tuple[str, str], float] = {}
        self.transports: dict[str, tuple[str, ...]] = {}
        self.handed_out: dict[tuple[str, str], float] = {}
        self.changed = 0

    def transports_of(self, id: str) -> Sequence[str]:
        """Whose letters a document has."""
        return self.transports.get(id, ())

    def note(self, transport: str, id: str, *, due_at: float, change: int) -> None:
        """There is this letter, or it is due at another time."""
        if (transport, id) not in self.due:
            self.transports[id] = (*self.transports_of(id), transport)
        self.due[transport, id] = due_at
        self.handed_out.pop((transport, id), None)
        self.changed = change

    def forget(self, transport: str, id: str, *, change: int) -> None:
        """There is no such letter any more."""
        del self.due[transport, id]
        self.handed_out.pop((transport, id), None)
        self.transports[id] = tuple(one for one in self.transports[id] if one != transport)
        if not self.transports[id]:
            del self.transports[id]
        self.changed = change
