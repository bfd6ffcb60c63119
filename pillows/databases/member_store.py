"""The checkpoints of a pillow on several databases: one for each database, and one for all together.

The common checkpoint is stored under the pillow's name and pattern. Its position is the one in `_db_updates`;
its digests and its epoch hold for all databases. Resetting it resets every database: each begins a new pass
at its next turn, because its own epoch is lower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

import gevent
from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, CheckpointStore, IntegrityError, Seq, TailKey
from checkpoints.files.blocking import call_safely
from pillows.databases.names import is_of_several

T = TypeVar("T")

#: Checkpoints that are read before other greenlets may run.
TURN_CHECKPOINTS = 100

#: Time to wait for the saves of other turns before a flush.
GATHER_SECONDS = 0.01


def give_way(values: Iterable[T]) -> Iterator[T]:
    """Yield values, and let other greenlets run between some of them."""
    for number, value in enumerate(values, start=1):
        yield value
        if number % TURN_CHECKPOINTS == 0:
            gevent.sleep(0)


class PatternStore:
    """The checkpoints for the start of the pillow: those of its single databases are left out.

    Args:
        store: the checkpoints.
        is_member: returns whether a tail is one of the pillow's databases.
    """

    def __init__(self, store: CheckpointStore, is_member: Callable[[TailKey], bool]) -> None:
        self._store = store
        self._is_member = is_member
        self.get, self.save = store.get, store.save
        self.edit, self.watching = store.edit, store.watching

    def keys(self) -> list[TailKey]:
        """List the tails that have a checkpoint, without the pillow's databases."""
        return [key for key in give_way(self._store.keys()) if not self._is_member(key)]


def carry_over(store: CheckpointStore, key: TailKey, source: str) -> TailKey | None:
    """Carry over a pillow's checkpoint to its changed pattern, so that the pillow continues.

    The checkpoints of the databases stay as they are. The position in `_db_updates` is left out: what it told
    of databases that match only now was ignored. The edit counts more than what a target may remember from an
    earlier time with this pattern.

    Args:
        store: the checkpoints.
        key: of the pillow with its pattern.
        source: the digest of its source, in which the pattern does not count.

    Returns:
        The former key, to be forgotten once the targets are taken over; None if nothing was done.
    """
    found: dict[TailKey, Checkpoint] = {}
    connection = key.source.partition("/")[0]
    for tail in give_way(store.keys()):
        if tail == key:
            return None
        if tail.pillow == key.pillow and is_of_several(tail.database):
            with suppress(IntegrityError):
                stored = store.get(tail)
                if stored and stored.digest.source == source and tail.source.startswith(f"{connection}/"):
                    found[tail] = stored
    if not found:
        return None
    former = max(found, key=lambda tail: (found[tail].epoch, found[tail].saved_at))
    store.edit(key, lambda _: replace(found[former], seq=Seq.BEGINNING))
    return former


class _SharedFlush:
    """Lets turns that save at about the same time share one flush to disk.

    Args:
        store: the checkpoints.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._next: gevent.Greenlet[..., tuple[None, BaseException | None]] | None = None

    def wait(self) -> None:
        """Wait until everything that was stored before is on disk.

        Raises:
            StoreWriteError: the write failed.
        """
        if self._next is None:
            self._next = gevent.spawn(self._run)
        _, error = self._next.get()
        if error is not None:
            raise error

    def _run(self) -> tuple[None, BaseException | None]:
        gevent.sleep(GATHER_SECONDS)
        self._next = None  # what is stored from now on belongs to the next one
        return call_safely(self._store.flush)


class MemberStore:
    """The checkpoints as a turn of one database sees them.

    Args:
        store: the checkpoints.
        pattern: the checkpoint of all databases together.
        is_copy: whether a target saves the checkpoints with the rows. After a crash the target's count, so a
            save here is not flushed on its own, but with the next common checkpoint. The beginning of a
            pass is: a target does not save the checkpoint with rows that were written beside a dead letter.
    """

    def __init__(self, store: CheckpointStore, pattern: Checkpoint, *, is_copy: bool = False) -> None:
        self._store = store
        self._pattern = pattern
        self._is_copy = is_copy
        self._flush = _SharedFlush(store)
        self.edit, self.watching = store.edit, store.watching

    def get(self, tail: TailKey) -> Checkpoint | None:
        """Return a database's checkpoint. If the pillow was reset since, return one that begins a pass.

        Raises:
            IntegrityError: the stored checkpoint cannot be read.
        """
        stored = self._store.get(tail)
        if stored is None:
            if self._pattern.pass_epoch == 1:
                return None
            # Rows of a lower epoch may be in the targets, from before the reset.
            return Checkpoint(seq=Seq.BEGINNING, epoch=self._pattern.pass_epoch - 1, pass_epoch=PASS_TO_BEGIN)
        if stored.pass_epoch == PASS_TO_BEGIN or stored.pass_epoch >= self._pattern.pass_epoch:
            return stored
        reset = Checkpoint.reset(stored)
        return replace(reset, epoch=max(stored.epoch, self._pattern.pass_epoch - 1))

    def save(self, tail: TailKey, checkpoint: Checkpoint) -> None:
        """Save a database's checkpoint, unless only its time has changed.

        The checkpoint of a new database is on disk before its rows are in a target. If the database is
        deleted while no daemon runs, only the checkpoint shows that it may have rows.

        Raises:
            CheckpointMoved, StoreWriteError: as `CheckpointStore.save`.
        """
        stored = self._store.get(tail)
        if stored is None or replace(stored, saved_at=checkpoint.saved_at) != checkpoint:
            self._store.save(tail, checkpoint, flush=False, keep_history=False)
            if not self._is_copy or stored is None or stored.pass_epoch == PASS_TO_BEGIN:
                self._flush.wait()

    def keys(self) -> list[TailKey]:
        """List nothing: a database has no predecessor."""
        return []
