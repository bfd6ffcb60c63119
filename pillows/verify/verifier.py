"""Proves that targets and source agree, beside a live pillow, in bounded memory.

Both sides are read in whole, once, and compared. Then what differs is looked at again, until it is
settled: a document that the pillow has not passed yet, or that changes just now, is on its way and no
difference. Each look is made in the one order that proves something:

1. the checkpoint is read, and the ids of all changes behind it: those are on their way;
2. the targets are read;
3. the source's changes since its last reading are read: those, too, are on their way.

What differs still and is in neither set did not change between 1 and 3, and the checkpoint had passed
it before the target was asked: so the target has lost it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gevent.event import Event

from checkpoints import Checkpoint, Seq
from pillows.clock import Clock
from pillows.errors import ConfigError, FatalError, RetryableError
from pillows.feed.base import DatabaseIdentity, Feed
from pillows.models import Change
from pillows.pillow import Pillow
from pillows.stages.transforms import PassThrough
from pillows.stages.triggers import DocumentTrigger
from pillows.transports.base import KeyedTransport, Transport
from pillows.verify.comparison_table import Scratch
from pillows.verify.source_timeout import SourcePatience

#: Documents that a target is asked for at once when it is looked at again.
_ASKED = 500
#: Between two looks at what is on its way.
_LOOK_SECONDS = 1.0
#: Examples of each kind of difference.
EXAMPLES = 10

KINDS = ("missing", "stale", "phantom")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One output of one transport.

    Attributes:
        transport: asked for what it holds.
        output: the output's name.
        bit: which bit of a document's `outputs` is this one's.
    """

    transport: KeyedTransport
    output: str
    bit: int

    @property
    def name(self) -> str:
        """As the operator sees it."""
        return f"{self.transport.name}/{self.output}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found in one target.

    Attributes:
        target: its name.
        stored: documents with rows in it.
        counts: kind of difference -> how many.
        examples: kind of difference -> some ids.
        kept: documents with rows that outlived them in the source, as `ignore` has it.
    """

    target: str
    stored: int
    kept: int
    counts: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        documents: in the source that should have rows.
        targets: what was found in each.
        on_their_way: differences of the first comparison that the pillow had not passed yet when
            the time was up.
        dead: documents left out, since they are in the dead letters.
    """

    documents: int
    targets: Sequence[Found]
    on_their_way: int
    dead: int

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not any(count for found in self.targets for count in found.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is verified.

    Attributes:
        pillow: decides which documents should have rows where.
        feed: reads the source; documents come along only if `needs_documents`.
        transports: those that can tell what they hold.
        checkpoint: the saved checkpoint as of now.
        dead: ids in the dead letters as of now.
        clock: for waits.
        wait_seconds: how long to wait for what is on its way; 0 where no pillow runs.
        patience_seconds: how long to wait for a source that is away.
        progress: called with what is read, and how many documents so far.
    """

    pillow: Pillow
    feed: Feed
    transports: Sequence[Transport]
    checkpoint: Callable[[], Checkpoint | None]
    dead: Callable[[], Sequence[str]]
    clock: Clock
    wait_seconds: float
    patience_seconds: float = 60.0
    progress: Callable[[str, int], None] = field(default=lambda _what, _count: None)


def needs_documents(pillow: Pillow) -> bool:
    """Whether a document must be read to say which outputs it has rows in."""
    return pillow.filter.needs_document or not isinstance(pillow.transform, PassThrough)


class Verifier:
    """Compares once, and again after a repair.

    Args:
        subject: what is verified.
        scratch: where both sides are put.

    Raises:
        ConfigError: no target can tell what it holds.
    """

    def __init__(self, subject: Subject, scratch: Scratch) -> None:
        self._subject = subject
        self._scratch = scratch
        outputs = list(subject.pillow.outputs)
        self._targets = [
            Target(transport=transport, output=output, bit=outputs.index(output))
            for transport in subject.transports
            if isinstance(transport, KeyedTransport) and transport.verifiable
            for output in transport.outputs
        ]
        if not self._targets:
            raise ConfigError(
                "No transport of this pillow can tell what it holds: append-only targets have no state."
            )
        # As in `Run._complete_pass`: those cannot be told from phantoms.
        self._outlive = subject.pillow.keep_deleted or subject.pillow.keep_departed
        self._identity: DatabaseIdentity | None = None
        self._read_to = Seq.BEGINNING
        self._trigger = DocumentTrigger(subject.feed.fetch)

    def verify(self) -> Report:
        """Reads both sides in whole, and looks again at what differs until it is settled.

        Raises:
            RetryableError: source or target is away; the source for longer than is waited for it.
            SourceChangedError: the source is another database than the checkpoint's.
            ConfigError: the pillow has no checkpoint yet.
        """
        self._identity = self._subject.feed.identify()
        self._read_source("source")
        for number, target in enumerate(self._targets):
            count = 0
            for page in target.transport.stored(target.output):
                self._scratch.put_stored(number, page)
                self._subject.progress(target.name, count := count + len(page))
        return self.look_again()

    def look_again(self) -> Report:
        """Looks at what differs until nothing of it is on its way, or the time is up.

        What begins to differ only now, in a source that is written to all the time, is not waited for.
        """
        clock = self._subject.clock
        give_up_at = clock.monotonic() + self._subject.wait_seconds
        self._compare()
        self._scratch.doubt()
        while True:
            self._look()
            on_their_way = self._scratch.on_their_way()
            if not on_their_way or clock.monotonic() >= give_up_at:
                return self._report(on_their_way)
            clock.wait(Event(), _LOOK_SECONDS)

    def differing(self, after: str | None, limit: int) -> list[str]:
        """Ids that differ anywhere, in byte order, behind `after`."""
        return self._scratch.differing(after, limit)

    def _look(self) -> None:
        self._scratch.untouch()
        checkpoint = self._subject.checkpoint()
        if checkpoint is None:
            raise ConfigError("This pillow has no checkpoint yet.", remedy="let it run first")
        for changes, _ in self._changes(checkpoint.seq):
            self._scratch.touch(change.id for change in changes)
        for number, target in enumerate(self._targets):
            self._ask_again(number, target)
        self._read_source("source", touch=True)
        self._compare()

    def _compare(self) -> None:
        self._scratch.leave_out(self._subject.dead())
        self._scratch.compare([target.bit for target in self._targets], outlive=self._outlive)

    def _ask_again(self, number: int, target: Target) -> None:
        after: str | None = None
        while ids := self._scratch.suspects(number, after, _ASKED):
            self._scratch.forget_stored(number, ids)
            for page in target.transport.stored(target.output, ids):
                self._scratch.put_stored(number, page)
            after = ids[-1]

    def _read_source(self, what: str, *, touch: bool = False) -> None:
        count = 0
        for changes, seq in self._changes(self._read_to):
            self._scratch.put_source(
                (change.id, change.rev, change.leaf_version, self._outputs(change)) for change in changes
            )
            if touch:
                self._scratch.touch(change.id for change in changes)
            self._read_to = seq or self._read_to
            self._subject.progress(what, count := count + len(changes))

    def _changes(self, since: Seq) -> Iterator[tuple[Sequence[Change], Seq | None]]:
        """All changes from a position to the head of the feed."""
        stop = Event()
        batches = self._subject.feed.batches(since, self._identity, stop)
        patience = SourcePatience(self._subject.feed, self._subject.clock, self._subject.patience_seconds)
        try:
            for batch in batches:
                patience.look()
                if batch.changes or batch.seq is not None:
                    yield batch.changes, batch.seq
                if batch.caught_up:
                    return
        finally:
            stop.set()
            close: Callable[[], Any] = getattr(batches, "close", lambda: None)
            close()

    def _outputs(self, change: Change) -> int | None:
        """A bit for each output that the document should have rows in; None if nobody can say.

        All outputs where filter or transform raises: without a dead letter that is a difference.
        """
        pillow = self._subject.pillow
        if change.deleted:
            return None if pillow.keep_deleted else 0
        if not needs_documents(pillow):
            return 1 if pillow.filter(change) else (None if pillow.keep_departed else 0)
        return self._transformed(change)

    def _transformed(self, change: Change) -> int | None:
        pillow = self._subject.pillow
        try:
            if not pillow.filter(change):
                return None if pillow.keep_departed else 0
            document = self._trigger(change)
            rows = {} if document.deleted else pillow.transform(document)
        except (RetryableError, FatalError):
            raise
        except Exception:  # noqa: BLE001 - a user's code; if the pillow has a dead letter of it, it is left out
            return (1 << len(pillow.outputs)) - 1
        return sum(1 << bit for bit, output in enumerate(pillow.outputs) if rows.get(output))

    def _report(self, on_their_way: int) -> Report:
        scratch = self._scratch
        return Report(
            documents=scratch.size("source"),
            targets=[
                Found(
                    target=target.name,
                    stored=scratch.size("stored", number),
                    kept=scratch.kept(number) if self._outlive else 0,
                    counts=dict.fromkeys(KINDS, 0) | scratch.counts(number),
                    examples={kind: scratch.examples(number, kind, EXAMPLES) for kind in KINDS},
                )
                for number, target in enumerate(self._targets)
            ],
            on_their_way=on_their_way,
            dead=len(set(self._subject.dead())),
        )
