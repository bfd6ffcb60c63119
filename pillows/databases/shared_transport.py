"""One open transport for all databases of a pillow. One call writes the batches of many turns.

Group commit: while a call is under way, the batches of other turns queue, and the next call writes them all.
So ten thousand small databases need a few transactions or requests rather than one each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import RLock
from msgspec import Struct, field
from msgspec.structs import replace

from checkpoints import Checkpoint, TailKey
from pillows.databases.member_store import give_way
from pillows.databases.names import is_of_several, with_key, without_keys
from pillows.delivery.batcher import BatchOptions
from pillows.errors import FatalError, RetryableError, StoppedError
from pillows.models import Batch, WriteResult, join_key
from pillows.transports.base import TargetState, Transport
from pillows.user_code import confine


class _Submission(Struct, eq=False):
    """A batch of one database that waits to be written.

    Attributes:
        tail: the database's tail.
        batch: the batch, with the keys of `share` as ids.
        done: gets the result, or the error.
    """

    tail: TailKey
    batch: Batch
    done: AsyncResult[WriteResult] = field(default_factory=AsyncResult)


class SharedTransport:
    """Writes the batches of many tails through one transport, one call after the other.

    Args:
        transport: open, and shared (`Transport.share`).
        options: the bounds of a call.
        checkpoint: of all databases together; for a target without transactions, it carries raised epochs.
        on_failure: called with an error that concerns all databases: the pillow cannot go on.

    Attributes:
        transport: as given.
        ahead: database name -> checkpoint in a transactional target, where it differs from that in the state
            directory.
        lost: the databases that have a checkpoint in the state directory, but not in a transactional target.
    """

    def __init__(
        self,
        transport: Transport,
        options: BatchOptions,
        checkpoint: Checkpoint,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.transport = transport
        self.ahead: dict[str, TargetState] = {}
        self.lost: set[str] = set()
        self._max_documents, self._max_bytes = options.max_docs, options.max_bytes
        self._checkpoint = checkpoint
        self._on_failure = on_failure
        self._lock = RLock()
        self._waiting: list[_Submission] = []
        self._wake = Event()
        self._writer = gevent.spawn(self._run)

    def write(self, tail: TailKey, batch: Batch) -> WriteResult:
        """Write a batch of one database, with the batches of others; wait for the result.

        Raises:
            As `Transport.write`. An error that is not about one document is raised for every batch of the
            call.
        """
        keyed = [with_key(tail.database, each) for each in batch.documents]
        checkpoints = {} if batch.checkpoint is None else {tail: batch.checkpoint}
        submission = _Submission(
            tail, replace(batch, documents=keyed, checkpoint=None, checkpoints=checkpoints)
        )
        self._waiting.append(submission)
        self._wake.set()
        try:
            result = submission.done.get()
        finally:
            if submission in self._waiting:  # given up: it must not be written later
                self._waiting.remove(submission)
        return without_keys(tail.database, result or WriteResult())

    def save(self, checkpoint: Checkpoint) -> None:
        """Save the common checkpoint of all databases in a transactional target. It holds the fence.

        Raises:
            As `Transport.write`.
        """
        with self._lock:
            self.transport.write(Batch(documents=(), epoch=checkpoint.epoch, checkpoint=checkpoint))

    def raise_epoch(self, epoch: int) -> None:
        """Store an epoch durably, unless a higher one is stored. It is used if the state directory is lost.

        Raises:
            As `Transport.acquire`.
        """
        with self._lock:
            if epoch > self._checkpoint.epoch:
                self.transport.acquire(replace(self._checkpoint, epoch=epoch))
                self._checkpoint = replace(self._checkpoint, epoch=epoch)

    def sweep(self, tail: TailKey, epoch: int, kept: Collection[str]) -> int:
        """Remove the rows of one database with a lower epoch; return their number.

        Raises:
            As `Transport.finish_pass`.
        """
        keys = {join_key(tail.database, id) for id in kept}
        with self._lock:
            return self.transport.sweep_database(tail.database, epoch, keys)

    def close(self) -> None:
        """End the writer. Turns that wait for it get `StoppedError`."""
        self._writer.kill()
        for each in self._waiting:
            each.done.set_exception(StoppedError())

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._write_group(self._take())

    def _take(self) -> Sequence[_Submission]:
        """Take the next group: batches of the same epoch and kind, at most one of each database."""
        first = self._waiting[0].batch
        group: dict[TailKey, _Submission] = {}
        documents = size_bytes = 0
        for each in self._waiting:
            batch = each.batch
            documents += len(batch.documents)
            size_bytes += sum(document.size_bytes for document in batch.documents)
            if group and (documents > self._max_documents or size_bytes > self._max_bytes):
                break
            if (batch.epoch, batch.first_pass) == (first.epoch, first.first_pass):
                group.setdefault(each.tail, each)
        taken = list(group.values())
        self._waiting = [each for each in self._waiting if each not in taken]
        return taken

    def _write_group(self, group: Sequence[_Submission]) -> None:
        try:
            with self._lock:
                result = self.transport.write(_merge([each.batch for each in group]))
        except BaseException as raised:  # noqa: BLE001 - handed to the turns that wait
            _hand_over(group, raised)
            error = confine(raised)
            if isinstance(error, FatalError) or not isinstance(error, RetryableError):
                self._on_failure(error)
            return
        for each in group:
            each.done.set(result)


class DatabaseTransport(Transport):
    """One database's part of a shared transport, for its turn.

    Args:
        shared: the transport of all databases.
        tail: the database's tail.
        stored: its checkpoint in the state directory; None for a database that is new.
        first_pass: whether the target cannot hold rows of the database yet.
    """

    def __init__(
        self, shared: SharedTransport, tail: TailKey, stored: Checkpoint | None, *, first_pass: bool
    ) -> None:
        real = shared.transport
        super().__init__(real.name, tail, real.connection, real.outputs)
        # On the instance: those of other transports are on the class.
        self.TYPE = real.TYPE or type(real).__name__  # type: ignore[misc]
        self.remembers = real.remembers  # type: ignore[misc]
        self.transactional = real.transactional and bool(real.shareable)  # type: ignore[misc]
        self._shared = shared
        self._stored = stored
        self._first_pass = first_pass
        self.needs_finish = not first_pass  # type: ignore[misc]

    def open(self) -> TargetState:
        """Return the database's checkpoint in the target, as it was read when the pillow started."""
        found, stored = self._shared.ahead.get(self.key.database), self._stored
        if found is not None:
            return found
        if stored is None:
            return TargetState(empty=self._first_pass)
        if not self.transactional:
            return TargetState(epoch=stored.epoch, empty=False)
        if self.key.database in self._shared.lost:
            return TargetState(empty=False)
        return TargetState(epoch=stored.epoch, empty=False, checkpoint=stored)

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store a raised epoch. All databases share one fence."""
        if not self.transactional:
            self._shared.raise_epoch(checkpoint.epoch)
        elif self._stored is not None and checkpoint.epoch > self._stored.epoch:
            self._shared.write(self.key, Batch(documents=(), epoch=checkpoint.epoch, checkpoint=checkpoint))
            self._note()
        self._stored = checkpoint

    def write(self, batch: Batch) -> WriteResult:
        """Write a batch, with those of other databases."""
        result = self._shared.write(self.key, batch)
        if batch.checkpoint is not None and not result.dead and not result.refused:
            self._note()
        return result

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the database's rows of lower epochs. A new database has none."""
        return 0 if self._first_pass else self._shared.sweep(self.key, epoch, kept)

    def close(self) -> None:
        """Do nothing: the other databases still use the transport."""

    def outputs_digest(self) -> str:
        """Return "": the digest of the outputs is checked once for all databases."""
        return ""

    def _note(self) -> None:
        """Note that the target has the checkpoint which is saved in the state directory next."""
        self._shared.ahead.pop(self.key.database, None)
        self._shared.lost.discard(self.key.database)


def compare_checkpoints(
    shared: SharedTransport, kept: Collection[TailKey], stored: Callable[[TailKey], Checkpoint | None]
) -> set[TailKey]:
    """Note where a transactional target and the state directory differ; return the target's tails.

    Args:
        shared: the target.
        kept: the tails that have a checkpoint in the state directory.
        stored: returns the checkpoint of a tail in the state directory.
    """
    known: set[TailKey] = set()
    for tail, state in give_way(shared.transport.list_checkpoints()):
        if is_of_several(tail.database):  # of a former pattern
            continue
        known.add(tail)
        if state.checkpoint is None or state.checkpoint != stored(tail):
            shared.ahead[tail.database] = state
    if shared.transport.transactional:
        shared.lost.update(tail.database for tail in kept if tail not in known)
    return known


def _merge(batches: Sequence[Batch]) -> Batch:
    first = batches[0]
    return replace(
        first,
        documents=[document for batch in batches for document in batch.documents],
        checkpoints={tail: each for batch in batches for tail, each in batch.checkpoints.items()},
    )


def _hand_over(group: Sequence[_Submission], raised: BaseException) -> None:
    """Pass the error of a call to all turns that wait for it; a killed writer counts as a stop."""
    error = raised if isinstance(raised, Exception) else StoppedError()
    for each in group:
        each.done.set_exception(error)
