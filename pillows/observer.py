"""How the packages report what happens: documented hooks that do nothing.

The daemon's logs and metrics are observers; `pillows` does not import them. A hook must return at once and
must not raise. `tail` is always the key of the tail concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from checkpoints import Checkpoint, TailKey
from pillows.models import Change, DocumentRows


class Rewind(StrEnum):
    """Why a tail meets changes again that it had read."""

    REPEATED = "repeated"  # the source serves them again: a node or a shard was lost, or restored
    REGRESSED = "regressed"  # documents are older in the source than they were
    RECREATED = "recreated"  # the database was deleted and created again
    EDITED = "edited"  # an operator moved the checkpoint


class DataObserver:
    """Base class of observers that read the documents and rows."""

    def arrived(self, tail: TailKey, *, changes: Sequence[Change]) -> None:
        """Note changes that the feed has brought, before the filter. Keep none: they hold documents."""

    def transformed(self, tail: TailKey, *, documents: Sequence[DocumentRows]) -> None:
        """Note the documents of a batch, as they are about to be written. Keep none."""


class Observer:
    """Base class of observers. Implement the hooks that you need.

    Attributes:
        data_observers: the current data observers. There are usually none, and then a batch only checks an
            empty list: an empty call would take three times as long.
    """

    data_observers: Sequence[DataObserver] = ()

    def change(self, tail: TailKey, *, count: int, kept: int, filtered: int) -> None:
        """Note that `count` changes went through filter and transform.

        Args:
            tail: the tail.
            count: changes.
            kept: those whose document has rows.
            filtered: those that the filter left out. The others are deletions and dead letters.
        """

    def stage(self, tail: TailKey, *, stage: str, seconds: float) -> None:
        """Note the time that a batch spent in a stage: `filter`, `trigger` or `transform`."""

    def queue(self, tail: TailKey, *, documents: int, size_bytes: int) -> None:
        """Note the documents that still wait, whenever a batch is taken for writing."""

    def in_flight(self, tail: TailKey, *, transport: str, batches: int) -> None:
        """Note the batches that a transport is writing, whenever one begins or ends."""

    def write(
        self, tail: TailKey, *, transport: str, documents: Mapping[str, int], size_bytes: int, seconds: float
    ) -> None:
        """Note that every document of a batch is settled in one transport.

        Args:
            tail: the tail.
            transport: its name.
            documents: how many were `applied`; found there in the same version (`equal`) or a newer one
                (`stale`); can never be written (`dead`).
            size_bytes: of all documents.
            seconds: from the first attempt to the end of the last one.
        """

    def batch(self, tail: TailKey, *, documents: int, refused: int, dead: int, seconds: float) -> None:
        """Note that every transport has acknowledged a batch."""

    def acknowledged(self, tail: TailKey, *, changes: int, seconds: float) -> None:
        """Note acknowledged changes, and the seconds since the oldest one arrived."""

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Note the wait before a retry of `where` (the source, or a transport's name)."""

    def workers(self, tail: TailKey, *, count: int) -> None:
        """Note how many worker processes a tail has now."""

    def worker_ended(self, tail: TailKey, *, pid: int, cause: str, how: str) -> None:
        """Note that a worker process ended without being asked to. It is replaced.

        Args:
            tail: the tail.
            pid: its process id.
            cause: `crashed`, `killed` (from outside), `hung` or `memory`.
            how: the cause, with the signal or the exit code.
        """

    def rewind(self, tail: TailKey, *, kind: Rewind, reason: str) -> None:
        """Note that changes come again that were read before."""

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:
        """Note that a document was stored as a dead letter."""

    def checkpoint(self, tail: TailKey, *, checkpoint: Checkpoint, seconds: float) -> None:
        """Note that a checkpoint was saved durably."""

    def verified(self, tail: TailKey, *, differences: Mapping[str, Mapping[str, int]]) -> None:
        """Note that the targets were compared with the source.

        Args:
            tail: the tail.
            differences: transport -> the number of `missing`, `stale` and `extra` documents.
        """

    def state(self, tail: TailKey, *, state: str, reason: str) -> None:
        """Note that a tail changed its state."""

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Note an event that an operator should see; the daemon itself does nothing about it."""

    def notice(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Note a rare event of interest: a start, a completed pass."""

    def removed(self, tail: TailKey) -> None:
        """Note that a tail has ended for good: it is no longer configured."""


class CompositeObserver(Observer):
    """Calls several observers, in their order.

    Args:
        observers: the observers to call; one of them may have `data_observers`.

    Raises:
        ValueError: several have.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        lists = [each.data_observers for each in observers if each.data_observers is not _NONE]
        if len(lists) > 1:
            raise ValueError("only one observer may have `data_observers`")
        self.data_observers = lists[0] if lists else _NONE  # the list itself: it changes
        for hook in _HOOKS:
            calls = [getattr(each, hook) for each in observers if _implements(each, hook)]
            if calls:  # looked up once: hooks are called for every batch
                setattr(self, hook, calls[0] if len(calls) == 1 else _call_all(calls))


def _implements(observer: Observer, hook: str) -> bool:
    """Return whether an observer implements a hook; a composite one does if one of its parts does."""
    return hook in vars(observer) or getattr(type(observer), hook) is not getattr(Observer, hook)


def _call_all(calls: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call_all(tail: TailKey, **facts: Any) -> None:
        for call in calls:
            call(tail, **facts)

    return call_all


_NONE = Observer.data_observers
_HOOKS = [name for name, each in vars(Observer).items() if callable(each) and not name.startswith("_")]
