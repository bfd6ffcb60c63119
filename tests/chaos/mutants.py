"""Planted bugs: somebody shipped each of them once, and each must make a run fail.

`plant` changes the code of the process that calls it (`tests.chaos.shim`). `MUTANTS` names the cycle that
shows each bug, and what the oracle finds then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def checkpoint_before_ack() -> None:
    """Move the checkpoint when a batch is taken, instead of when it is written."""
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
    """Do not sync directories, so that a power failure undoes renames."""
    from checkpoints.files.directory import Directory

    Directory.sync = lambda self: None


def swallowed_item_error() -> None:
    """Count every item of an answered bulk request as written."""
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
    """Take the revision number of the winner for the document's leaf version."""
    from pillows.feed.parsing import changes_parser
    from pillows.models import revision_number

    change = changes_parser._to_change

    def winning(row: Any) -> Any:
        made = change(row)
        made.leaf_version = revision_number(made.rev)
        return made

    changes_parser._to_change = winning


def page_cut_is_an_end() -> None:
    """Take a page that was cut for a complete one."""
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
    """Empty the batcher on a stop, and count its items as written."""
    from pillows.delivery.batcher import Batcher

    close = Batcher.close

    def dropping(self: Any) -> None:
        self._items = [(segment, None) for segment, _ in self._items]
        close(self)

    Batcher.close = dropping


def failed_batch_later() -> None:
    """Retry a failed batch after later ones."""
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
    """Take a recreated database for the former one."""
    from pillows.feed.base import DatabaseIdentity

    DatabaseIdentity.contradicts = lambda self, other: False


@dataclass(frozen=True, slots=True)
class Mutant:
    """A planted bug.

    Attributes:
        plant: changes the code.
        fault, end: those of the cycle that shows it.
        shows: the differences of which the oracle finds at least one.
    """

    plant: Callable[[], None]
    fault: str
    end: str
    shows: frozenset[str]


#: The differences that a lost change leaves: of a new document, a changed one, a deleted one.
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
    """Change the code of this process."""
    MUTANTS[name].plant()
