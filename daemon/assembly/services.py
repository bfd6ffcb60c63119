"""The services that all tails of a process share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from checkpoints import CheckpointStore, TailKey
from daemon.backfill.backfills import Backfills
from pillows.clock import Clock
from pillows.dead_letters.store import DeadLetters
from pillows.feed.shared.pool import FeedPool
from pillows.observer import Observer

if TYPE_CHECKING:  # few daemons need Kafka's client
    from daemon.kafka.engine import Engine


class Services(Struct, frozen=True, kw_only=True):
    """The parts that all tails share. The code that opened them closes them.

    Attributes:
        store: the checkpoints.
        dead_letters: the dead letters.
        clock: for every duration and wait.
        observer: receives all events.
        backfills: run while the tails read their feeds; None if no tail runs backfills.
        feeds: shared connections to CouchDB; None lets each tail read alone.
        engine: distributes the pillows over the daemons of a service; None if one daemon runs them all.
        is_paused: returns whether an operator has paused a tail.
    """

    store: CheckpointStore
    dead_letters: DeadLetters
    clock: Clock
    observer: Observer
    backfills: Backfills | None = None
    feeds: FeedPool | None = None
    engine: Engine | None = None
    is_paused: Callable[[TailKey], bool] = lambda _: False
