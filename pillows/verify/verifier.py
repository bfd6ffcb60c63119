"""Prove that targets and source agree while the pillow runs, in bounded memory.

Both sides are read once in whole and compared. Then the differences are checked again until they are
settled: a document that the pillow has not processed yet, or that is changing, is in flight and not a
difference. Each check follows the only order that proves something:

1. the checkpoint is read, and the ids of all changes behind it: those are in flight;
2. the targets are read;
3. the source's changes since its last reading are read: those, too, are in flight.

A document that still differs and is in neither set did not change between 1 and 3, and the checkpoint had
passed it before the target was read: so the target has lost it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gevent.event import Event
from msgspec import Struct

from checkpoints import Checkpoint, Seq
from pillows.clock import Clock
from pillows.errors import ConfigError, FatalError, RetryableError
from pillows.feed.base import DatabaseIdentity, Feed
from pillows.models import MAX_LEAF_VERSION, Change
from pillows.pillow import Pillow
from pillows.transports.base import AppendOnlyTransport, KeyedTransport, Transport
from pillows.user_code import confine
from pillows.verify.comparison_table import ComparisonTable
from pillows.verify.contents import GROUP_DOCUMENTS, ContentComparison, ContentSelection, Target
from pillows.verify.source_timeout import SourceTimeout

#: Documents per query of a target in a check.
_CHUNK_DOCUMENTS = 500
#: Interval of the checks.
_CHECK_SECONDS = 1.0
#: Ids reported for each kind of difference.
EXAMPLES = 10

#: Kinds of differences that versions show, and the one that a comparison of contents adds.
KINDS = ("missing", "stale", "phantom")
ALTERED = "altered"


class TargetReport(Struct, frozen=True, kw_only=True):
    """The result for one target.

    Attributes:
        target: its name.
        stored: documents with rows in it.
        counts: kind of difference -> how many.
        examples: kind of difference -> some ids.
        kept: documents with rows that outlived them in the source, as `ignore` has it.
        incomparable: why its contents were not compared; "" if they were, or if that was not requested.
    """

    target: str
    stored: int
    kept: int
    incomparable: str = ""
    counts: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]


class Report(Struct, frozen=True, kw_only=True):
    """The result of a verification.

    Attributes:
        documents: in the source that should have rows.
        targets: the result for each.
        in_flight: differences of the first comparison that the pillow had not processed when the time was
            up.
        dead: documents with dead letters, which were excluded.
        compared: documents whose contents were compared; None if only versions were.
        append_only: names of the transports that were not compared: their targets only ever receive more.
    """

    documents: int
    targets: Sequence[TargetReport]
    in_flight: int
    dead: int
    compared: int | None = None
    append_only: Sequence[str] = ()

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(count for found in self.targets for count in found.counts.values())


class VerifyContext(Struct, frozen=True, kw_only=True):
    """The parts of a verification.

    Attributes:
        pillow: decides which documents have rows in which output.
        feed: reads the source; documents come along only if `Pillow.needs_document`.
        transports: of the pillow; those that can list their documents are compared.
        checkpoint: returns the saved checkpoint.
        dead: returns the ids that have dead letters.
        clock: for waits.
        wait_seconds: how long to wait for documents in flight; 0 if no pillow runs.
        source_timeout_seconds: how long to wait for a source that is away.
        progress: called with the side being read, the number of documents so far, and the total if it is
            known.
        contents: the documents whose rows are compared too; None to compare versions only.
    """

    pillow: Pillow
    feed: Feed
    transports: Sequence[Transport]
    checkpoint: Callable[[], Checkpoint | None]
    dead: Callable[[], Sequence[str]]
    clock: Clock
    wait_seconds: float
    source_timeout_seconds: float = 60.0
    progress: Callable[[str, int, int | None], None] = lambda _what, _count, _total: None
    contents: ContentSelection | None = None


class Verifier:
    """Compares once, and again after a repair.

    Args:
        context: the tail, its targets and its source.
        table: holds both sides.

    Raises:
        ConfigError: no target can list its documents; or, with `contents`, no target can compare rows.
    """

    def __init__(self, context: VerifyContext, table: ComparisonTable) -> None:
        self._context = context
        self._table = table
        outputs = list(context.pillow.outputs)
        self._targets = [
            Target(transport=transport, output=output, bit=outputs.index(output))
            for transport in context.transports
            if isinstance(transport, KeyedTransport) and transport.verifiable
            for output in transport.outputs
        ]
        if not self._targets:
            names = ", ".join(each.name for each in context.transports)
            raise ConfigError(
                f"The targets of this pillow can't be verified ({names}): files, topics, streams and "
                "webhooks only ever receive more, and are never read back.",
                remedy="compare them by hand, or add a transport into a database",
            )
        self._append_only = [
            each.name for each in context.transports if isinstance(each, AppendOnlyTransport)
        ]
        # As in `TailRun._finish_pass`: such rows look like stale ones.
        self._outlive = context.pillow.keep_deleted or context.pillow.keep_departed
        self._identity: DatabaseIdentity | None = None
        self._read_to = Seq.BEGINNING
        self._trigger = context.pillow.trigger(context.feed.fetch, context.feed.attachment)
        self._compared: int | None = None
        self._contents = self._make_contents() if context.contents else None

    def verify(self) -> Report:
        """Read both sides in whole, and check the differences until they are settled.

        Raises:
            RetryableError: a target is away, or the source for longer than the timeout.
            SourceChangedError: the source is another database than the checkpoint's.
            ConfigError: the pillow has no checkpoint yet.
        """
        self._identity = self._context.feed.identify()
        self._read_source("source", total=self._count_changes())
        documents = self._table.size("source")
        for number, target in enumerate(self._targets):
            count = 0
            for page in target.transport.stored(target.output):
                self._table.put_stored(number, page)
                self._context.progress(target.name, count := count + len(page), max(count, documents))
        self._table.exclude(self._context.dead())
        self._compare_contents()
        return self.recheck()

    def recheck(self) -> Report:
        """Check the differences until none of them is in flight, or the time is up.

        Later differences, in a source that is written to all the time, are not waited for.
        """
        clock = self._context.clock
        give_up_at = clock.monotonic() + self._context.wait_seconds
        self._compare()
        self._table.freeze_pending()
        while True:
            self._check()
            in_flight = self._table.in_flight_count()
            if not in_flight or clock.monotonic() >= give_up_at:
                return self._report(in_flight)
            clock.wait(Event(), _CHECK_SECONDS)

    def differing(self, after: str | None, limit: int) -> list[str]:
        """Return ids that differ in any target, in byte order, after `after`."""
        return self._table.differing(after, limit)

    def _check(self) -> None:
        self._table.clear_in_flight()
        checkpoint = self._context.checkpoint()
        if checkpoint is None:
            raise ConfigError("This pillow has no checkpoint yet.", remedy="let it run first")
        for changes, _ in self._changes(checkpoint.seq):
            self._table.mark_in_flight(change.id for change in changes)
        for number, target in enumerate(self._targets):
            self._reread_target(number, target)
        self._recompare_contents()
        self._read_source("source", mark=True)
        self._compare()

    def _count_changes(self) -> int | None:
        with suppress(RetryableError):  # the reading waits for it
            return self._context.feed.pending(Seq.BEGINNING)
        return None

    def _make_contents(self) -> ContentComparison:
        context = self._context
        contents = ContentComparison(
            context.pillow,
            context.feed,
            self._targets,
            clock=context.clock,
            source_timeout_seconds=context.source_timeout_seconds,
        )
        if len(contents.incomparable) == len(self._targets):
            reasons = (f"{self._targets[n].name}: {why}" for n, why in contents.incomparable.items())
            raise ConfigError(
                f"The contents of these targets can't be compared ({'; '.join(reasons)}).",
                remedy="compare versions alone, without `--content`",
            )
        return contents

    def _compare_contents(self) -> None:
        """Compare the rows of the selected documents."""
        selection = self._context.contents
        if self._contents is None or selection is None:
            return
        total, self._compared = selection.count(self._table), 0
        for ids in selection.select(self._table):
            self._note_altered(self._contents, ids)
            self._compared += len(ids)
            self._context.progress("contents", self._compared, total)

    def _recompare_contents(self) -> None:
        """Compare again the rows of all documents that were altered: they may have changed since."""
        after: str | None = None
        while self._contents is not None and (ids := self._table.altered(after, GROUP_DOCUMENTS)):
            self._note_altered(self._contents, ids)
            after = ids[-1]

    def _note_altered(self, contents: ContentComparison, ids: Sequence[str]) -> None:
        for number, altered in contents.find_altered(ids).items():
            self._table.put_altered(number, ids, altered)

    def _compare(self) -> None:
        self._table.exclude(self._context.dead())
        self._table.compare([target.bit for target in self._targets], outlive=self._outlive)

    def _reread_target(self, number: int, target: Target) -> None:
        after: str | None = None
        while ids := self._table.candidates(number, after, _CHUNK_DOCUMENTS):
            self._table.forget_stored(number, ids)
            for page in target.transport.stored(target.output, ids):
                self._table.put_stored(number, page)
            after = ids[-1]

    def _read_source(self, what: str, *, mark: bool = False, total: int | None = None) -> None:
        count = 0
        for changes, seq in self._changes(self._read_to):
            self._table.put_source(
                (
                    change.id,
                    change.rev,
                    min(change.leaf_version, MAX_LEAF_VERSION),
                    self._find_outputs(change),
                )
                for change in changes
            )
            if mark:
                self._table.mark_in_flight(change.id for change in changes)
            self._read_to = seq or self._read_to
            self._context.progress(what, count := count + len(changes), total)

    def _changes(self, since: Seq) -> Iterator[tuple[Sequence[Change], Seq | None]]:
        """Yield all changes from a position to the head of the feed."""
        stop = Event()
        batches = self._context.feed.batches(since, self._identity, stop)
        timeout = SourceTimeout(self._context.feed, self._context.clock, self._context.source_timeout_seconds)
        try:
            for batch in batches:
                timeout.check()
                if batch.changes or batch.seq is not None:
                    yield batch.changes, batch.seq
                if batch.caught_up:
                    return
        finally:
            stop.set()
            close: Callable[[], Any] = getattr(batches, "close", lambda: None)
            close()

    def _find_outputs(self, change: Change) -> int | None:
        """Return a bit for each output that the document should have rows in; None if it is unknown.

        All outputs if filter or transform raises: without a dead letter that is a difference.
        """
        pillow = self._context.pillow
        if change.deleted:
            return None if pillow.keep_deleted else 0
        try:
            if not pillow.filter(change):
                return None if pillow.keep_departed else 0
            if not pillow.needs_document:
                return 1
            document = self._trigger(change)
            rows = {} if document.deleted else pillow.transform(document)
        except (RetryableError, FatalError):
            raise
        except BaseException as error:  # noqa: BLE001 - a user's code; if the pillow has a dead letter of it, it is left out
            confine(error)
            return (1 << len(pillow.outputs)) - 1
        return sum(1 << bit for bit, output in enumerate(pillow.outputs) if rows.get(output))

    def _report(self, in_flight: int) -> Report:
        table = self._table
        kinds = KINDS if self._contents is None else (*KINDS, ALTERED)
        incomparable = self._contents.incomparable if self._contents else {}
        return Report(
            documents=table.size("source"),
            targets=[
                TargetReport(
                    target=target.name,
                    stored=table.size("stored", number),
                    kept=table.kept(number) if self._outlive else 0,
                    counts=dict.fromkeys(kinds, 0) | table.counts(number),
                    examples={kind: table.examples(number, kind, EXAMPLES) for kind in kinds},
                    incomparable=incomparable.get(number, ""),
                )
                for number, target in enumerate(self._targets)
            ],
            in_flight=in_flight,
            dead=len(set(self._context.dead())),
            compared=self._compared,
            append_only=self._append_only,
        )
