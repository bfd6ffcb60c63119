"""Documents that can never be written as they are: stored durably, so that the other documents continue.

A dead letter holds the document's id, where it failed and why, but never its content. It is on disk before a
checkpoint passes its change: the code that saves a checkpoint calls `sync` first. Syncing every batch with a
bad document cost a fifth of the throughput.

A dead letter is replaced when the document fails again, and cleared when a later version of the document is
written. It is retried after a growing wait (`pillows.runtime.redelivery`). After `max_tries` attempts only an
operator can retry it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import gevent

from checkpoints import TailKey, Tracker
from checkpoints.replica import Replica, ReplicaWriter
from pillows.clock import Clock, SystemClock
from pillows.dead_letters.dead_letter import (
    LONGEST_RETRY_SECONDS,
    PIPELINE,
    DeadLetter,
    ErrorOptions,
    retry_delay_seconds,
)
from pillows.dead_letters.tail_index import TailIndex, is_due
from pillows.errors import FatalError
from pillows.models import DocumentRows, TransportResult
from pillows.user_code import MAX_ERROR_CHARACTERS

__all__ = ["DeadLetter", "DeadLetters"]

#: Dead letters that are read before other greenlets get their turn (about 10 ms).
_DEAD_LETTERS_A_TURN = 200
#: Tail, transport and id of a dead letter.
_Key = tuple[str, str, str]


class DeadLetters:
    """The dead letters of all tails of a daemon.

    Args:
        path: the folder of the store.
        clock: for the times of failures.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        # No automatic syncs: they would switch greenlets while a dead letter is only half stored.
        self._tracker = Tracker(path, sync_at=None, sync_interval=None)
        self._clock = clock or SystemClock()
        self._known: defaultdict[TailKey, TailIndex] = defaultdict(TailIndex)
        self._changes = self._synced = 0
        self._replica: ReplicaWriter | None = None
        self._index()

    def attach(self, replica: Replica) -> None:
        """Begin with the replica's dead letters, or give it ours if it has none; store in both from now on.

        No tail may run yet.

        Raises:
            StoreError: the replica cannot be read, or a write failed.
        """
        known = replica.read()
        if known is None:
            replica.write({key: self._encode(key) for key in self._tracker})
        else:
            for key in [key for key in self._tracker if key not in known]:
                del self._tracker[key]
            for number, (replicated, entry) in enumerate(known.items()):
                if number % _DEAD_LETTERS_A_TURN == 0:
                    gevent.sleep(0)
                self._tracker[replicated] = json.loads(entry)
            self._tracker.sync()
        self._known.clear()
        self._index()
        self._synced = self._changes
        self._replica = replica

    def replicate_to(self, replica: ReplicaWriter) -> None:
        """From now on store changes in a replica, too; `load` takes over single tails from it."""
        self._replica = replica

    def load(self, tail: TailKey, entries: Mapping[tuple[str, str], bytes]) -> None:
        """Replace the dead letters of a tail that does not run by those of a replica.

        Args:
            tail: the tail.
            entries: transport and id -> the entry as the replica got it.
        """
        for transport, id in self._known[tail].due_at:
            del self._tracker[str(tail), transport, id]
        self._known[tail] = TailIndex()  # a write that is under way, and fails, puts nothing back
        for (transport, id), entry in entries.items():
            fields: dict[str, Any] = json.loads(entry)
            self._tracker[str(tail), transport, id] = fields
            self._note(tail, transport, id, fields)
        self._known[tail].unreplicated.clear()

    def add(
        self, dead_letters: Sequence[DeadLetter], options: ErrorOptions | None = None, config: str = ""
    ) -> None:
        """Store dead letters of one tail; they are on disk after the next `sync`.

        Raises:
            FatalError: there is no room for more.
        """
        if not dead_letters:
            return
        options = options or ErrorOptions()
        known = self._known[dead_letters[0].tail]
        fresh = {
            (dead_letter.transport, dead_letter.id) for dead_letter in dead_letters
        } - known.due_at.keys()
        if len(known.due_at) + len(fresh) > options.max_dead_letters:
            raise FatalError(
                f"There are {len(known.due_at)} dead letters, {options.max_dead_letters} at most.",
                remedy="mend the cause, then `pillowd dead-letter retry --all`, or `discard --all`",
            )
        for dead_letter in dead_letters:
            self._put(dead_letter, options.max_tries, config)

    def clear(
        self, tail: TailKey, documents: Sequence[DocumentRows], results: Mapping[str, TransportResult]
    ) -> None:
        """Forget the dead letters of documents that were written, in their version or a later one.

        They leave the disk with the next `sync`.
        """
        known = self._known[tail]
        if not known.due_at:
            return
        for document in [one for one in documents if one.id in known.transports]:
            for transport in known.transports_of(document.id):
                written = not (transport in results and document.id in results[transport].dead)
                stored = self._tracker[str(tail), transport, document.id]["version"]
                if written and stored <= document.leaf_version:
                    self._forget(tail, transport, document.id)

    def forget(self, tail: TailKey, id: str) -> None:
        """Forget the dead letters of one document; they leave the disk with the next `sync`."""
        for transport in self._known[tail].transports_of(id):
            self._forget(tail, transport, id)

    def holds_back(self, tail: TailKey, documents: Iterable[DocumentRows]) -> bool:
        """Return whether a target must not commit the checkpoint with these documents.

        It must not while a dead letter of the tail is not on disk, or one of the documents has a dead letter
        to be cleared.
        """
        if self.unsynced(tail):
            return True
        known = self._known[tail]
        return bool(known.due_at) and any(document.id in known.transports for document in documents)

    def unsynced(self, tail: TailKey) -> bool:
        """Return whether dead letters of a tail were changed since the last `sync`."""
        known = self._known[tail]
        return known.changed > self._synced or bool(known.unreplicated)

    @contextmanager
    def watching(self, tail: TailKey, on_due: Callable[[float], None]) -> Iterator[None]:
        """Call `on_due` inside the block whenever a dead letter of a tail falls due sooner than all others.

        Args:
            tail: the tail.
            on_due: receives the seconds until then; also at the beginning, if there is one.
        """
        known = self._known[tail]
        known.on_due = on_due
        if (seconds := self.seconds_to_due(tail)) is not None:
            on_due(seconds)
        try:
            yield
        finally:
            known.on_due = None

    def seconds_to_due(self, tail: TailKey) -> float | None:
        """Return the seconds until a dead letter of a tail may be due; None if none ever is."""
        next_at = self._known[tail].next_at
        if next_at == inf:
            return None
        return min(max(0.0, next_at - self._clock.wall()), LONGEST_RETRY_SECONDS)

    def claim_due(self, tail: TailKey, *, at_most: int) -> list[DeadLetter]:
        """Return dead letters of a tail whose document is due for a retry.

        They are not due again until they are added again, or `unclaim` is called.
        """
        known, now = self._known[tail], self._clock.wall()
        due = list(islice((each for each, at in known.due_at.items() if is_due(at, now)), at_most))
        for dead_letter in due:
            known.claimed[dead_letter] = known.due_at[dead_letter]
            known.due_at[dead_letter] = inf
        if len(due) < at_most:
            known.next_at = min(known.due_at.values(), default=inf)
        return [self._get(tail, *dead_letter) for dead_letter in due]

    def is_due(self, tail: TailKey) -> bool:
        """Return whether a dead letter of a tail is due for a retry, or is being retried."""
        known, now = self._known.get(tail), self._clock.wall()
        if known is None:
            return False
        claimed = any(known.due_at.get(each) == inf for each in known.claimed)
        return claimed or any(is_due(at, now) for at in known.due_at.values())

    def list_due(self, pillow: str) -> Sequence[TailKey]:
        """List the tails of a pillow with dead letters that are due for a retry."""
        return [tail for tail in list(self._known) if tail.pillow == pillow and self.is_due(tail)]

    def release(self, tail: TailKey) -> None:
        """Free the memory of a tail that has no dead letters."""
        known = self._known.get(tail)
        if known is not None and not known.due_at and not self.unsynced(tail) and known.on_due is None:
            del self._known[tail]

    def unclaim(self, tail: TailKey) -> None:
        """Make claimed dead letters due again, unless they have failed again or been cleared."""
        known = self._known[tail]
        for dead_letter, at in known.claimed.items():
            if known.due_at.get(dead_letter) == inf:
                known.due_at[dead_letter] = at
                known.next_at = min(known.next_at, at)
        known.claimed.clear()

    def postpone(self, dead_letters: Iterable[DeadLetter], seconds: float) -> None:
        """Make dead letters that could not be retried due after this time."""
        for dead_letter in dead_letters:
            known = self._known[dead_letter.tail]
            if (dead_letter.transport, dead_letter.id) in known.due_at:
                at = known.due_at[dead_letter.transport, dead_letter.id] = self._clock.wall() + seconds
                known.next_at = min(known.next_at, at)

    def retry(self, tail: TailKey, dead_letters: Iterable[tuple[str, str]]) -> int:
        """Make dead letters, given by transport and id, due now, with no attempts; return their number.

        Raises:
            StoreWriteError: the write failed; they are due all the same.
        """
        known = self._known[tail]
        revived = [dead_letter for dead_letter in dead_letters if dead_letter in known.due_at]
        for transport, id in revived:
            fields = {"_tries": 0, "_aborted": False, "next_retry_at": 0.0}
            self._tracker.amend((str(tail), transport, id), fields)
            self._note(tail, transport, id, fields)
        if revived:
            self.sync(tail)
        return len(revived)

    def lower_version(self, dead_letter: DeadLetter, version: int) -> None:
        """Lower the version that clears the dead letter: the source has been rewound to it."""
        key = (str(dead_letter.tail), dead_letter.transport, dead_letter.id)
        self._tracker.amend(key, {"version": version})
        self._count_change(dead_letter.tail, dead_letter.transport, dead_letter.id)

    def discard(self, tail: TailKey, dead_letters: Iterable[tuple[str, str]]) -> int:
        """Forget dead letters, given by transport and id; return their number.

        Raises:
            StoreWriteError: the write failed; they are removed from memory nevertheless.
        """
        gone = [dead_letter for dead_letter in dead_letters if dead_letter in self._known[tail].due_at]
        for transport, id in gone:
            self._forget(tail, transport, id)
        if gone:
            self.sync(tail)
        return len(gone)

    def forget_all(self, tail: TailKey) -> None:
        """Forget all dead letters of a tail that does not run, durably.

        Raises:
            StoreWriteError: the write failed; they are removed from memory nevertheless.
        """
        self.discard(tail, list(self._known[tail].due_at))

    def hand_over(self, giver: TailKey, taker: TailKey) -> None:
        """Give the dead letters of a tail to another one; neither runs.

        Raises:
            StoreWriteError: the write failed; they are given in memory nevertheless.
        """
        for number, (transport, id) in enumerate(list(self._known[giver].due_at), start=1):
            if number % _DEAD_LETTERS_A_TURN == 0:
                gevent.sleep(0)
            entry = dict(self._tracker[str(giver), transport, id])
            self._tracker[str(taker), transport, id] = entry
            self._note(taker, transport, id, entry)
            self._forget(giver, transport, id)
        self.sync(taker)
        self.sync(giver)

    def sync(self, tail: TailKey) -> None:
        """Write every change of a tail's dead letters so far; it is durable when this returns.

        All tails share the disk, so theirs are on it, too. In a replica each tail has a place of its own, and
        one that can't be written holds up no other tail.

        Raises:
            StoreWriteError: the write failed; nothing is lost.
        """
        changes = self._changes  # later changes, made during the sync, stay unsynced
        self._tracker.sync()
        self._synced = max(self._synced, changes)
        if self._replica is not None:
            self._replicate(self._replica, tail)

    def ids(self, tail: TailKey, transport: str) -> set[str]:
        """Return the ids of documents with a dead letter of a transport or of the pipeline.

        The transport's target may hold older versions of these documents.
        """
        return {id for its, id in self._known[tail].due_at if its in (transport, PIPELINE)}

    @property
    def is_empty(self) -> bool:
        """Whether there is no dead letter."""
        return not len(self._tracker)

    def count(self, tail: TailKey) -> int:
        """Return the number of dead letters of a tail."""
        return len(self._known[tail].due_at)

    def list_tails(self, pillow: str) -> Sequence[TailKey]:
        """List the tails of a pillow with dead letters."""
        return [tail for tail, known in list(self._known.items()) if tail.pillow == pillow and known.due_at]

    def count_of_pillow(self, pillow: str) -> int:
        """Return the number of dead letters of all tails of a pillow."""
        return sum(len(known.due_at) for tail, known in list(self._known.items()) if tail.pillow == pillow)

    def list(self, tail: TailKey) -> list[DeadLetter]:
        """List the dead letters of a tail, oldest first; other greenlets run meanwhile."""
        dead_letters = []
        for number, (transport, id) in enumerate(list(self._known[tail].due_at)):
            if number % _DEAD_LETTERS_A_TURN == 0:
                gevent.sleep(0)
            if (transport, id) in self._known[tail].due_at:
                dead_letters.append(self._get(tail, transport, id))
        return sorted(dead_letters, key=lambda dead_letter: dead_letter.first_at)

    def close(self) -> None:
        """Close the store."""
        self._tracker.close()

    def _index(self) -> None:
        for key in self._tracker:
            name, transport, id = key
            pillow, _, source = name.partition("@")  # no pillow's name has one
            self._note(TailKey(pillow, source), transport, id, self._tracker[key])

    def _count_change(self, tail: TailKey, transport: str, id: str) -> int:
        """Have the next `sync` write a dead letter, or its removal; return the number of the change."""
        self._changes += 1
        if self._replica is not None:
            self._known[tail].unreplicated[transport, id] = self._changes
        return self._changes

    def _replicate(self, replica: ReplicaWriter, tail: TailKey) -> None:
        known = self._known[tail]
        with known.replicating:  # a second caller waits for what the first one writes
            taken = dict(known.unreplicated)
            if not taken:
                return
            keys: list[_Key] = [(str(tail), *each) for each in taken]
            replica.write({key: self._encode(key) if key in self._tracker else None for key in keys})
            for each, change in taken.items():
                if known.unreplicated.get(each) == change:  # else it was changed again meanwhile
                    del known.unreplicated[each]

    def _encode(self, key: _Key) -> bytes:
        return json.dumps(dict(self._tracker[key])).encode()

    def _put(self, dead_letter: DeadLetter, max_tries: int, config: str) -> None:
        now = self._clock.wall()
        key = (str(dead_letter.tail), dead_letter.transport, dead_letter.id)
        is_known = (dead_letter.transport, dead_letter.id) in self._known[dead_letter.tail].due_at
        known = dict(self._tracker[key]) if is_known else {}
        # Another version is tried afresh: the error may be corrected in it.
        tries = known["_tries"] + 1 if known.get("version") == dead_letter.leaf_version else 1
        fields: dict[str, Any] = {
            "rev": dead_letter.rev,
            "version": dead_letter.leaf_version,
            "stage": dead_letter.stage,
            "error": dead_letter.error[:MAX_ERROR_CHARACTERS],
            "seq": dead_letter.seq,
            "config": config,
            "at": now,
            "first_at": known.get("first_at", now),
            "failures": known.get("failures", 0) + 1,
            "next_retry_at": now + retry_delay_seconds(tries),
            "_tries": tries,
            "_aborted": tries >= max_tries,
        }
        self._tracker[key] = known | fields
        self._note(dead_letter.tail, dead_letter.transport, dead_letter.id, fields)

    def _note(self, tail: TailKey, transport: str, id: str, entry: Mapping[str, Any]) -> None:
        at = inf if entry["_aborted"] else entry.get("next_retry_at", 0.0)
        known = self._known[tail]
        known.note(transport, id, due_at=at, change=self._count_change(tail, transport, id))
        if at < known.next_at:
            known.next_at = at
            if known.on_due is not None:
                known.on_due(max(0.0, at - self._clock.wall()))

    def _forget(self, tail: TailKey, transport: str, id: str) -> None:
        del self._tracker[str(tail), transport, id]
        self._known[tail].forget(transport, id, change=self._count_change(tail, transport, id))

    def _get(self, tail: TailKey, transport: str, id: str) -> DeadLetter:
        entry = self._tracker[str(tail), transport, id]
        fields = {k: v for k, v in entry.items() if not k.startswith("_")}
        fields |= {"tries": entry["_tries"], "aborted": entry["_aborted"]}
        return DeadLetter(tail=tail, transport=transport, id=id, leaf_version=fields.pop("version"), **fields)
