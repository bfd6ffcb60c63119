"""The contract of a transport: where rows go.

A new transport is one file or folder here (or an entry point of another distribution, see
`pillows.registry`) plus one test class that inherits `tests.conformance.TransportConformance`. It
declares its settings (`Connection` for the server, `Output` for one index or table) and keeps these
promises:

1. **Whole rows.** `write` makes every output of each document hold exactly the given rows, in one
   step per document: readers see the old rows or the new ones, never a mix.
2. **Guarded.** A keyed target stores `write_version(epoch, leaf_version)` per document and output, keeps it
   after a delete, and refuses writes that are not newer. A refused document comes back in `refused` with the
   stored write version, whether that is equal (a replay; nothing is written) or higher. Of several
   entries of one id in a batch only the newest counts (`newest`).
3. **Per-document outcomes.** A document that can never be written is in `dead`; the rest of the batch
   is written. A document that may succeed later is in `retry`, or the whole call raises RetryableError.
4. **Idempotent.** The same batch may come again, after any failure, in whole or in part.
5. **Cooperative.** Every wait is on gevent's hub and bounded by a timeout. A greenlet killed in
   `write` leaves whole documents only, and the next call works.
6. **No checkpoint past trouble.** A transactional target saves `Batch.checkpoint` only together with
   a batch whose every document was applied. Otherwise the caller first re-checks the refused documents (after
   a purge of the source, an equal write version may be another document), stores the dead letters, then
   saves the checkpoint with an empty batch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from checkpoints import Checkpoint, TailKey
from pillows.errors import ConfigError
from pillows.models import Batch, DocumentRows, WriteResult, epoch_of, newest
from pillows.options import Options, OutputOptions
from pillows.transports.common.builds import BuildSwitch
from pillows.transports.common.mirroring import MirrorSupport


class Stored(Struct, frozen=True, kw_only=True):
    """One document as an output holds it.

    Attributes:
        id: the document's id.
        write_version: the stored write version; None where the target keeps none.
        rev: the source's revision; None where the target does not keep it.
    """

    id: str
    write_version: int | None = None
    rev: str | None = None


class TargetState(Struct, frozen=True, kw_only=True):
    """The state of a pillow that a target has stored, read when it is opened.

    Attributes:
        epoch: the highest epoch that this pillow wrote under; None if it never wrote.
        empty: whether no output holds a row of this pillow.
        checkpoint: the copy that a transactional transport keeps; None elsewhere.
        unreadable: why that copy cannot be read; "" if it can.
        missing_outputs: outputs that are missing, or hold no state of this pillow, although the target does.
        foreign_epoch: the highest epoch of other writers; None without any. Read only if this pillow never
            wrote.
        changed: the changes made to existing outputs, because the configuration has changed.
    """

    epoch: int | None = None
    empty: bool = True
    checkpoint: Checkpoint | None = None
    unreadable: str = ""
    missing_outputs: Sequence[str] = ()
    foreign_epoch: int | None = None
    changed: Sequence[str] = ()

    def with_foreign_versions(self, write_versions: Iterable[int | None]) -> TargetState:
        """Return the state of a pillow that never wrote to a target with other writers.

        Args:
            write_versions: the greatest one of each output; None for an output without any.
        """
        epochs = (None if each is None else epoch_of(each) for each in write_versions)
        return replace(self, foreign_epoch=_get_greatest(epochs))

    @classmethod
    def merge(cls, states: Mapping[str, TargetState]) -> TargetState:
        """Return the state of a target whose outputs remember separately.

        Args:
            states: output name -> its state.
        """
        return cls(
            epoch=_get_greatest(each.epoch for each in states.values()),
            empty=all(each.empty for each in states.values()),
            missing_outputs=[output for output, each in states.items() if each.epoch is None],
            foreign_epoch=_get_greatest(each.foreign_epoch for each in states.values()),
            changed=[change for each in states.values() for change in each.changed],
        )

    @classmethod
    def from_row(cls, row: tuple[int, str] | None, *, empty: bool) -> TargetState:
        """Return the state in a transactional target's row of the tail.

        Args:
            row: the epoch, and the checkpoint as JSON; None if there is no row.
            empty: as the attribute.
        """
        if row is None:
            return cls(empty=empty)
        epoch, text = row
        try:
            checkpoint = Checkpoint.from_json(msgspec.json.decode(text))
        except (KeyError, TypeError, ValueError) as error:
            return cls(epoch=epoch, empty=empty, unreadable=repr(error))
        return cls(epoch=epoch, empty=empty, checkpoint=checkpoint)


class Part(Struct, frozen=True, kw_only=True):
    """One of the parts into which a pillow's documents are divided, each with a tail of its own.

    Attributes:
        key: the part's tail.
        number: of the part, from 0.
        term: a name for the time for which one process has the part; no earlier owner had the same.
    """

    key: TailKey
    number: int
    term: str


class Transport(ABC):
    """Writes the rows of one tail into one target.

    Inherit `KeyedTransport` for a target that holds documents by id, `AppendOnlyTransport` for one
    that only ever receives more.

    Args:
        name: the transport's name within its pillow; the connection's name unless configured.
        key: the pillow and source of the rows.
        connection: the server's validated settings, an instance of `Connection`.
        outputs: output name -> its validated settings, an instance of `Output`.
    """

    #: The type in digests, which must never change; the class's name unless given.
    TYPE: ClassVar[str] = ""
    #: Settings of the server or place that is written to.
    Connection: ClassVar[type[Options]]
    #: Settings of one output: an index, a table, a file.
    Output: ClassVar[type[OutputOptions]]
    #: How `pillowd mirror` uses it; None if it cannot be a mirror's target.
    mirror: ClassVar[MirrorSupport | None] = None
    #: Remembers its state over restarts. False if nothing can be kept (`null`, `stdout`).
    remembers: ClassVar[bool] = True
    #: Saves `Batch.checkpoint` in the transaction that writes the rows.
    transactional: ClassVar[bool] = False
    #: `write` may be called for several batches at once, if no document is in two of them.
    concurrent: ClassVar[bool] = False
    #: Takes rows as JSON (`msgspec.Raw`) that a transform has made as mappings. Rows of a whole document
    #: always are JSON.
    takes_json: ClassVar[bool] = False
    #: A first pass ends with `finish_pass`. False if nothing can be to remove or to publish then.
    needs_finish: ClassVar[bool] = True
    #: May write the documents of several databases; see `share`.
    shareable: ClassVar[bool] = False
    #: May write a part of the pillow's documents while other tails write the others; see `take_part`.
    divisible: ClassVar[bool] = False

    def __init__(self, name: str, key: TailKey, connection: Any, outputs: Mapping[str, Any]) -> None:
        self.name = name
        self.key = key
        self.connection = connection
        self.outputs = outputs

    @property
    def needs_deletions(self) -> bool:
        """Whether a first pass must bring the deletions of documents that it never had."""
        return not self.remembers

    def check(self) -> str:
        """Connect without changing anything, and return a short description of the target.

        Raises:
            RetryableError: the target can't be reached.
            AccessError: it denies access.
            ConfigError: the configuration cannot work there.
        """
        return "not checked: this transport has no check"

    def preview(self, batch: Batch) -> str:
        """Return the request that `write` would send for a batch, as text. Connects to nothing.

        Raises:
            PermanentError: a document of it can't be written.
        """
        return "".join(
            f"{output} {document.id}: {msgspec.json.encode(list(document.rows.get(output, ()))).decode()}\n"
            for document in newest(batch.documents)
            for output in self.outputs
        )

    def try_write(self, batch: Batch) -> WriteResult | None:  # noqa: ARG002 - few targets can undo a write
        """Write a batch and undo it; return the result, or None if a write cannot be undone.

        Called without `open`: missing outputs are created in the same transaction.

        Raises:
            RetryableError, AccessError, ConfigError: as `check`.
        """
        return None

    @abstractmethod
    def open(self) -> TargetState:
        """Connect, create missing outputs, and return the target's state of this tail.

        Raises:
            RetryableError: the target can't be reached.
            AccessError: it denies access.
            ConfigError: an existing output does not fit the configured one.
        """

    @abstractmethod
    def acquire(self, checkpoint: Checkpoint) -> None:
        """Store the checkpoint's epoch and number of edits durably in the target and take the fence.

        A stored epoch is only ever raised. A transactional target stores the whole checkpoint.

        Called after `open`, before the first write, and again whenever the epoch is raised. From
        now on a transport with a fence refuses writes of an earlier owner.
        """

    @abstractmethod
    def write(self, batch: Batch) -> WriteResult:
        """Write a batch; see the promises above.

        Raises:
            RetryableError: nothing is known of the whole batch, or the target is busy or away.
            FencedError: another owner has acquired the target.
        """

    @abstractmethod
    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """End a pass: remove this tail's rows of an epoch below `epoch`, publish new outputs.

        Args:
            epoch: of the pass.
            kept: documents whose rows stay at any epoch: the pass met them and could not write them.

        Returns:
            The number of rows removed.
        """

    def share(self, connection: str) -> None:  # noqa: B027 - few keep more of it than the ids
        """Prepare for the documents of several databases, once, before `open`.

        Their ids in batches are then `database:id`, so that none is that of another database's document.
        `key` is that of all databases together: it has the fence. A transactional transport saves
        `Batch.checkpoints`, under the rule for `checkpoint` with each database by itself.

        Args:
            connection: its name; a source's is `connection/database`.
        """

    def take_part(self, part: Part) -> None:  # noqa: B027 - few keep more than documents
        """Prepare for one part of the pillow's documents, once, before `open`.

        Tails of other parts write into the same outputs, in other processes, too. Where a document changes
        its part, two of them may write it at the same time: its write version decides, in one step with the
        write. So `open` never says that the target is empty, and `finish_pass` removes nothing.

        `key` stays the pillow's. A checkpoint and a fence are the part's.

        Args:
            part: the part.
        """

    def list_checkpoints(self) -> Iterable[tuple[TailKey, TargetState]]:
        """Yield the state of each database that a transactional transport has saved a checkpoint of."""
        return ()

    def sweep_database(self, database: str, epoch: int, kept: Collection[str] = ()) -> int:
        """Remove the rows of one database with an epoch below `epoch`; see `share` and `finish_pass`.

        Args:
            database: its name.
            epoch: of its pass.
            kept: ids, as in batches, of documents whose rows stay at any epoch.

        Returns:
            The number of rows removed.
        """
        raise NotImplementedError(f"{type(self).__name__} can't remove {database}: {epoch}, {len(kept)}")

    @abstractmethod
    def close(self) -> None:
        """Close every connection. May be called twice, and without `open`."""

    def make_switch(self) -> BuildSwitch:
        """Return the switch by which two builds of the outputs change places. It opens its own connection.

        Raises:
            ConfigError: the target has nothing like that.
        """
        raise ConfigError(
            f"{self.name} ({self.TYPE or type(self).__name__}) can't be switched to another build: "
            "its outputs can't change names in one step.",
            remedy="move it into a pillow of its own, or `pillowd checkpoint reset KEY` rewrites it in place",
        )

    def outputs_digest(self) -> str:
        """Return a digest of the settings that written rows depend on; see `output_kinds`."""
        return hash_json(sorted(self.output_kinds()))

    def output_kinds(self) -> Iterable[tuple[Any, ...]]:
        """Return the settings that written rows depend on (names, index settings, kind of table).

        One tuple of JSON values per output, the output's name first.
        """
        return [(output,) for output in self.outputs]


class KeyedTransport(Transport):
    """A transport whose target holds documents by id, with their write versions: it converges."""

    #: Can list its documents (`stored`), so `pillowd verify` can compare them with the source.
    verifiable: ClassVar[bool] = False

    def set_source(self, connection: Options, database: str) -> None:  # few need it
        """Set the server and database that the documents come from, once, before `open`."""

    def set_predecessors(self, tails: Collection[TailKey]) -> None:  # few record owners
        """Set the tails whose outputs belong to this one now, once, before `open`.

        Args:
            tails: the same pillow on its earlier sources. After an operator's reset a new pass
                replaces their rows.
        """

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """Yield pages of the documents that have rows in an output, in any order.

        Called after `set_source`, without `open`: it only reads.

        Args:
            output: its name.
            ids: only these documents, few enough for one query; all unless given.

        Raises:
            RetryableError, AccessError, ConfigError: as `check`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot list what {output} holds")

    def stored_of(self, output: str, database: str) -> Iterator[Sequence[Stored]]:
        """Yield pages of one database's documents that have rows in an output, as `stored`; see `share`."""
        raise NotImplementedError(f"{type(self).__name__} cannot list what {output} holds of {database}")

    def describe_incomparable(self, output: str) -> str:  # noqa: ARG002 - the contract's
        """Return why the rows of an output can't be compared by `find_altered`; "" if they can.

        Called as `stored` is.

        Raises:
            RetryableError, AccessError, ConfigError: as `check`.
        """
        return f"{type(self).__name__} can't compare rows"

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        """Return the ids of documents whose rows in an output are not those that a write would store.

        A document counts only if the output holds it in the same leaf version: so what changes meanwhile is
        never altered. Called as `stored` is.

        Args:
            output: its name.
            documents: with at least one row in that output, few enough for one query.

        Raises:
            RetryableError, AccessError, ConfigError: as `check`.
        """
        raise NotImplementedError(f"{type(self).__name__} can't compare rows in {output}: {len(documents)}")

    def find_missing_outputs(self, absent: Sequence[str], known: Checkpoint | None) -> Sequence[str]:
        """Return the missing outputs that existed when the target's checkpoint was saved.

        They are not created before an operator's reset: an empty one would hide that rows are lost.

        Args:
            absent: outputs that do not exist.
            known: the checkpoint in the target.
        """
        written = known is not None and known.changes and self.outputs_digest() in known.digest.outputs
        return absent if written else ()


class AppendOnlyTransport(Transport):
    """A transport whose target only ever receives more: nothing can be acquired or removed."""

    remembers: ClassVar[bool] = False
    shareable: ClassVar[bool] = True

    def open(self) -> TargetState:
        """Return an empty state: nothing is remembered."""
        return TargetState()

    def acquire(self, checkpoint: Checkpoint) -> None:
        """Do nothing: there is no owner."""

    def finish_pass(self, epoch: int, kept: Collection[str] = ()) -> int:  # noqa: ARG002  # the contract's
        """Remove nothing: appended lines stay; readers recognise old ones by their lower version."""
        return 0

    def sweep_database(self, database: str, epoch: int, kept: Collection[str] = ()) -> int:  # noqa: ARG002
        """Remove nothing, as `finish_pass`."""
        return 0

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def make_switch(self) -> BuildSwitch:
        """Refuse: a second build would send everything again; see `Transport.make_switch`."""
        raise ConfigError(
            f"{self.name} ({self.TYPE or type(self).__name__}) can't be switched to another build: it only "
            "ever receives more, and would receive every document again.",
            remedy="move it into a pillow of its own",
        )


def hash_json(value: object) -> str:
    """Return the SHA-256 of a value's JSON, in hex."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _get_greatest(epochs: Iterable[int | None]) -> int | None:
    return max((epoch for epoch in epochs if epoch is not None), default=None)
