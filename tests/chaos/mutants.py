"""Planted bugs: each is one that somebody shipped, and each must turn a run red.

`plant` changes the code of the process that calls it (`tests.chaos.shim`); `MUTANTS` says what shows it, and
how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def checkpoint_before_ack() -> None:
    """The checkpoint moves when a batch is taken, not when it is written."""
    from pillows.delivery import batch_delivery
    from pillows.delivery.items import partition_items
    from pillows.progress.checkpointer import TailProgress
    from pillows.progress.watermark import WatermarkMove

    write, acknowledge = batch_delivery.BatchDelivery.write, TailProgress.acknowledge

    def early(self: Any, items: Any) -> batch_delivery.BatchResult:
        move = acknowledge(self._progress, partition_items(items).acks)
        write(self, items)
        return batch_delivery.BatchResult(move=move)

    TailProgress.acknowledge = lambda self, acks, committed=None: WatermarkMove()
    batch_delivery.BatchDelivery.write = early


def no_directory_fsync() -> None:
    """A rename is believed to be on the disk."""
    from checkpoints.files.directory import Directory

    Directory.sync = lambda self: None


def swallowed_item_error() -> None:
    """A bulk request that was answered counts as written."""
    from pillows.delivery import fanout
    from pillows.models import WriteResult

    deliver = fanout.FanOut._deliver

    def swallowing(self: Any, transport: Any, batch: Any) -> Any:
        write = transport.write
        transport.write = lambda b: WriteResult(refused=(r := write(b)).refused, dead=r.dead)
        try:
            return deliver(self, transport, batch)
        finally:
            del transport.write

    fanout.FanOut._deliver = swallowing


def generation_as_version() -> None:
    """The winner's generation is taken for the document's version."""
    from pillows.feed.parsing import changes_parser
    from pillows.models import revision_number

    change = changes_parser._to_change

    def winning(row: Any) -> Any:
        made = change(row)
        made.leaf_version = revision_number(made.rev)
        return made

    changes_parser._to_change = winning


def page_cut_is_an_end() -> None:
    """The last position of a page counts, though the page was not read to its end."""
    from pillows.errors import RetryableError
    from pillows.feed.catch_up import CatchUp
    from pillows.models import ChangeBatch

    read_page = CatchUp._read_page

    def hopeful(self: Any, cursor: Any, page: Any) -> Any:
        announced = self._source.probe("now")
        try:
            return read_page(self, cursor, page)
        except RetryableError:
            cursor.since = announced.seq
            cursor.loader.add(ChangeBatch(changes=(), seq=announced.seq, caught_up=True))
            return announced, 0

    CatchUp._read_page = hopeful


def batch_dropped_on_stop() -> None:
    """A stop empties the batcher, and what was in it counts as done."""
    from pillows.delivery.batcher import Batcher

    close = Batcher.close

    def dropping(self: Any) -> None:
        self._items = [(segment, None) for segment, _ in self._items]
        close(self)

    Batcher.close = dropping


def failed_batch_later() -> None:
    """A failed batch is put aside and retried after the ones behind it."""
    import gevent

    from pillows.delivery import fanout
    from pillows.errors import RetryableError
    from pillows.models import TransportResult

    deliver = fanout.FanOut._deliver

    def aside(self: Any, transport: Any, batch: Any) -> Any:
        def once(given: Any) -> Any:
            return type(transport).write(transport, given)

        try:
            result = once(batch)
        except RetryableError:
            gevent.spawn_later(3.0, deliver, self, transport, batch)
            return TransportResult(refused={}, dead={})
        if result.retry:
            gevent.spawn_later(3.0, deliver, self, transport, batch.only(result.retry))
        return TransportResult(refused=result.refused, dead=result.dead)

    fanout.FanOut._deliver = aside


def recreated_ignored() -> None:
    """A database of the same name is taken for the same database."""
    from pillows.feed.base import DatabaseIdentity

    DatabaseIdentity.contradicts = lambda self, other: False


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug.

    Attributes:
        plant: changes the code.
        fault, end: of the cycle that shows it.
        shows: what the oracle finds then: one of these at least.
    """

    plant: Callable[[], None]
    fault: str
    end: str
    shows: frozenset[str]


#: Changes that no target was given: of new documents, changed ones, and deleted ones.
LOST = frozenset({"missing", "stale", "resurrected"})

MUTANTS = {
    "checkpoint before ack": Mutant(checkpoint_before_ack, "none", "at before-elasticsearch", LOST),
    "no directory fsync": Mutant(no_directory_fsync, "none", "power", LOST),
    "swallowed item error": Mutant(swallowed_item_error, "elasticsearch: items busy", "kill", LOST),
    "generation as version": Mutant(generation_as_version, "none", "kill", frozenset({"stale"})),
    "page cut is an end": Mutant(page_cut_is_an_end, "couch: cut mid-chunk", "kill", LOST),
    "batch dropped on stop": Mutant(batch_dropped_on_stop, "none", "stop", LOST),
    "failed batch later": Mutant(failed_batch_later, "elasticsearch: items busy", "kill", LOST),
    "recreated ignored": Mutant(
        recreated_ignored, "couch: database recreated", "kill", frozenset({"phantom"})
    ),
}


def plant(name: str) -> None:
    """Changes the code of this process."""
    MUTANTS[name].plant()
