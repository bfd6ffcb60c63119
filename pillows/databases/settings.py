"""The settings of a pillow on several databases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from checkpoints import TailKey
from pillows.couch.client import CouchClient
from pillows.feed.options import SourceOptions
from pillows.models import Change
from pillows.pillow import Pillow
from pillows.runtime.tail_settings import TailSettings
from pillows.transports.base import Transport


def _never(_: TailKey) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasesSettings:
    """The values that a pillow on several databases runs with.

    Attributes:
        tail: those of all databases together; its key's source is `connection/pattern`.
        source: which databases, and how they are read.
        make_client: returns a client of the server; the run acquires and releases it.
        pillow_of: returns the pipeline of a database, given its name.
        prefilter: whether a change's document is wanted; see `CouchFeed`.
        make_apart: makes the transports of one database, where each has outputs of its own; None if all
            databases share theirs.
        is_paused: returns whether an operator has paused a database's tail.
    """

    tail: TailSettings
    source: SourceOptions
    make_client: Callable[[], CouchClient]
    pillow_of: Callable[[str], Pillow]
    prefilter: Callable[[Change], bool] | None = None
    make_apart: Callable[[TailKey], Sequence[Transport]] | None = None
    is_paused: Callable[[TailKey], bool] = _never

    @property
    def key(self) -> TailKey:
        """The key of all databases together."""
        return self.tail.key

    def tail_of(self, database: str) -> TailKey:
        """Return the key of one database's tail."""
        return TailKey(self.key.pillow, f"{self.source.connection}/{database}")
