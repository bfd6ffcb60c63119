"""Send documents again, in their current state, through the ordinary pipeline.

The tail must not run meanwhile. A document that a target lacks, or holds in an older version, is written as
usual: a lagging copy of the source cannot replace a newer state by an older one. Refused documents are
re-checked (`pillows.delivery.stale_writes`): a document is written under a raised epoch if the source reports
three times that it is older than the target's. A document that a target holds in the source's own version is
rewritten the same way: it was compared as different, so its row was altered, or lost while its version was
kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import gevent
from gevent.event import Event

from pillows.errors import RetryableError
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.runtime.without_feed import open_sender

#: A repair that takes longer is given up: by then the client no longer waits for the answer.
REPAIR_SECONDS = 25.0

#: Documents that are fetched at once.
_FETCHED = 200


def repair(settings: TailSettings, services: TailServices, ids: Sequence[str], *, halt: Event) -> None:
    """Send documents, and save the checkpoint.

    Args:
        settings: the tail's.
        services: the tail's.
        ids: the documents.
        halt: ends the retries of unreachable servers; then not all are sent.

    Raises:
        FatalError: the tail cannot run.
    """
    with open_sender(settings, services, halt=halt, trust_equal=False) as sender:
        for start in range(0, len(ids), _FETCHED):
            sender.send(ids[start : start + _FETCHED])


@contextmanager
def limit_repair() -> Iterator[Event]:
    """Yield an event that ends a repair: it is set once that has taken too long.

    Raises:
        RetryableError: the event was set.
    """
    halt = Event()
    alarm = gevent.spawn_later(REPAIR_SECONDS, halt.set)
    try:
        yield halt
    finally:
        alarm.kill()
    if halt.is_set():
        raise RetryableError(f"Source or target was away: not all was sent in {REPAIR_SECONDS:g} s.")
