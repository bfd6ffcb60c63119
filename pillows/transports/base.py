"""The contract of a transport: where rows go.

A new transport is one file in this folder plus one test class that inherits
`tests.conformance.TransportConformance`. It declares its settings (`Connection` for the server,
`Output` for one index or table), registers itself by its file's name, and keeps these promises:

1. **Whole rows.** `write` makes every output of each document hold exactly the rows given, in one
   step a document: afterwards neither an old row nor a half-written set is visible.
2. **Guarded.** A keyed target stores `guard(epoch, version)` per document and output, survives a
   delete with it, and refuses what is not newer; a refused document comes back in `refused` with
   the stored guard: an equal version too (a replay; nothing is written), and one of a higher epoch.
   Of several entries of one id in a batch only the newest counts (`newest`).
3. **Per-document outcomes.** One document that can never be written is in `dead`, the rest of the
   batch is written. What may succeed later is in `retry`, or the whole call raises RetryableError.
4. **Idempotent.** The same batch may come again, after any failure, in whole or in part.
5. **Cooperative.** Every wait is on gevent's hub and bounded by a timeout. A greenlet killed in
   `write` leaves whole documents only, and the next call works.
6. **No checkpoint past trouble.** A transactional target saves `Batch.checkpoint` only together with
   a batch whose every document was applied. Otherwise the caller first looks at what was refused (an
   equal guard may be another document, where the source was purged), puts what is dead where it is
   safe (dead letters), then saves it with an empty batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from checkpoints import Checkpoint, TailKey
from pillows.models import Batch, DocumentRows, Standing, WriteResult, guard
from pillows.options import Options
from pillows.transports.common.json_lines import lines


def newest(documents: Sequence[DocumentRows]) -> list[DocumentRows]:
    """One entry per id: the one of the highest version, of equal ones the last."""
    chosen: dict[str, DocumentRows] = {}
    for document in documents:
        if (known := chosen.get(document.id)) is None or document.version >= known.version:
            chosen[document.id] = document
    return list(chosen.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What an output holds of one document.

    Attributes:
        id: the document's id.
        guard: the stored guard; None where the target keeps none.
        rev: the source's revision; None where the target does not keep it.
    """

    id: str
    guard: int | None = None
    rev: str | None = None


class Transport(ABC):
    """Writes the rows of one tail into one target.

    Args:
        name: the transport's name within its pillow; the connection's name unless given.
        key: the pillow and source whose rows these are.
        connection: validated settings of the server, of the class's `Connection`.
        outputs: output name -> validated settings, of the class's `Output`.
    """

    #: Settings of the server or place that is written to.
    Connection: ClassVar[type[Options]]
    #: Settings of one output: an index, a table, a file.
    Output: ClassVar[type[Options]]
    #: Keyed and guarded: it converges. False for append-only targets.
    guarded: ClassVar[bool] = True
    #: Remembers its standing over restarts. False where nothing can be kept (`null`, `stdout`).
    remembers: ClassVar[bool] = True
    #: Saves `Batch.checkpoint` in the transaction that writes the rows.
    transactional: ClassVar[bool] = False
    #: `write` may be called for several batches at once, none of which has a document of another.
    concurrent: ClassVar[bool] = False
    #: Can tell what it holds (`stored`), so `pillowd verify` can compare it with the source.
    verifiable: ClassVar[bool] = False

    def __init__(self, name: str, key: TailKey, connection: Any, outputs: Mapping[str, Any]) -> None:
        self.name = name
        self.key = key
        self.connection = connection
        self.outputs = outputs

    def check(self) -> str:
        """Connects and tells in a few words what is there. Creates and changes nothing.

        Raises:
            RetryableError: the target is away.
            AccessError: it does not let us in.
            ConfigError: what is configured cannot work there.
        """
        return "not looked at: this transport has no check"

    def preview(self, batch: Batch) -> str:
        """The very request that `write` would send for a batch, as text. Connects to nothing.

        Raises:
            PermanentError: a document of it can't be written.
        """
        return "".join(
            lines(o, d, d.rows.get(o, ()), guard(batch.epoch, d.version)).decode()
            for d in newest(batch.documents)
            for o in self.outputs
        )

    def attach_source(self, connection: Options, database: str) -> None:  # noqa: B027  # few need it
        """Tells which server and database the documents come from, once, before `open`."""

    def take_over(self, former: Collection[TailKey]) -> None:  # noqa: B027  # few note whose rows these are
        """Tells whose outputs are this tail's now, once, before `open`.

        Args:
            former: tails of the same pillow, on sources that it had before. An operator's reset
                lets a new pass replace what they wrote.
        """

    @abstractmethod
    def open(self) -> Standing:
        """Connects, creates what is missing, and tells what the target remembers of this tail.

        Raises:
            RetryableError: the target is away.
            AccessError: it does not let us in.
            ConfigError: the outputs do not fit what is there.
        """

    @abstractmethod
    def claim(self, checkpoint: Checkpoint) -> None:
        """Durably notes the checkpoint's epoch and number of edits in the target and takes the fence.

        A stored epoch is only ever raised. A transactional target stores the whole checkpoint.

        Called after `open`, before the first write, and again whenever the epoch is raised. From
        now on a transport with a fence refuses writes of an earlier owner.
        """

    @abstractmethod
    def write(self, batch: Batch) -> WriteResult:
        """Writes a batch; see the promises above.

        Raises:
            RetryableError: nothing is known of the whole batch, or the target is busy or away.
            FencedError: another owner has claimed the target.
        """

    @abstractmethod
    def complete_pass(self, epoch: int, kept: Collection[str] = ()) -> int:
        """Ends a pass: removes this tail's rows of an epoch below `epoch`, publishes new outputs.

        Args:
            epoch: of the pass.
            kept: documents whose rows stay, whatever their epoch: the pass met them, and could not
                write them.

        Returns:
            How many rows were removed.
        """

    def stored(self, output: str, ids: Sequence[str] | None = None) -> Iterator[Sequence[Stored]]:
        """The documents that have rows in an output, some at a time, in any order.

        Called after `attach_source`, without `open`: it only reads.

        Args:
            output: its name.
            ids: only these documents, few enough for one question; all unless given.

        Raises:
            RetryableError, AccessError, ConfigError: as `check`.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot tell what {output} holds")

    @abstractmethod
    def close(self) -> None:
        """Closes every connection. May be called twice, and without `open`."""

    def lost(self, absent: Sequence[str], known: Checkpoint | None) -> Sequence[str]:
        """Which outputs that are not there were there, as the target's own checkpoint tells.

        They are not created before an operator's reset: an empty one would hide that rows are lost.

        Args:
            absent: outputs that are not there.
            known: the checkpoint in the target.
        """
        written = known is not None and known.changes and self.outputs_digest() in known.digest.outputs
        return absent if written else ()

    @abstractmethod
    def outputs_digest(self) -> str:
        """A digest of what cannot change under written rows (index settings, the kind of table)."""
