"""The settings of a pillow on several databases."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from checkpoints import TailKey
from pillows.couch.client import CouchClient
from pillows.feed.options import SourceOptions
from pillows.models import Change
from pillows.pillow import Pillow
from pillows.runtime.document_sender import DocumentSender
from pillows.runtime.tail_settings import TailSettings
from pillows.transports.base import Transport


def _never(_: TailKey) -> bool:
    return False


class TurnBackfill(Protocol):
    """Sends chosen documents of a database again, in its turn.

    Attributes:
        is_running: whether the turn has to continue for the backfill.
    """

    is_running: bool

    def run(self, sender: DocumentSender) -> None:
        """Send the documents. Return soon after the turn should end."""


class DatabasesSettings(Struct, frozen=True, kw_only=True):
    """The values that a pillow on several databases runs with.

    Attributes:
        tail: the settings of all databases together; the source in its key is `connection/pattern`.
        source: the databases, and how they are read.
        make_client: returns a client of the server; the run acquires and releases it.
        pillow_of: returns the pipeline of a database, given its tail.
        prefilter: whether a change's document is wanted; see `CouchFeed`.
        make_apart: makes the transports of one database, if each has its own outputs; None if all databases
            share them.
        is_paused: returns whether an operator has paused a database's tail.
        list_backfills: returns the tails of all pillows that have documents to send again.
        make_backfill: makes the backfill of a tail's turn, given a function that returns whether the turn
            should end; returns None if there is nothing to send.
    """

    tail: TailSettings
    source: SourceOptions
    make_client: Callable[[], CouchClient]
    pillow_of: Callable[[TailKey], Pillow]
    prefilter: Callable[[Change], bool] | None = None
    make_apart: Callable[[TailKey], Sequence[Transport]] | None = None
    is_paused: Callable[[TailKey], bool] = _never
    list_backfills: Callable[[], Collection[TailKey]] = tuple
    make_backfill: Callable[[TailKey, Callable[[], bool]], TurnBackfill | None] = lambda *_: None

    @property
    def key(self) -> TailKey:
        """The key of all databases together."""
        return self.tail.key

    def tail_of(self, database: str) -> TailKey:
        """Return the key of a database's tail."""
        return TailKey(self.key.pillow, f"{self.source.connection}/{database}")
