"""Control calls that list, retry and discard dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog

from checkpoints import TailKey
from daemon.control.paging import page
from daemon.control.tails import Tails
from pillows.dead_letters.store import DeadLetter, DeadLetters

_log = structlog.get_logger("pillowd.operator")


class DeadLetterCalls:
    """Lists, retries and discards dead letters.

    Args:
        tails: the tails that can be named.
    """

    def __init__(self, tails: Tails) -> None:
        self._tails = tails
        self._listing = Listing(tails.state.dead_letters)

    def list_page(self, key: str, after: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """Return a page of a tail's dead letters, oldest first; empty at the end.

        Args:
            key: the tail.
            after: `first_at`, transport and id of the last dead letter of the page before.
        """
        return self._listing.page(self._tails.known(key), tuple(after) if after else None)

    def ids(self, key: str, transport: str, after: str = "") -> list[str]:
        """Return a page of ids of documents that a transport may hold in an older state, in order.

        They have a dead letter of that transport, or failed before any transport saw them.

        Args:
            key: the tail.
            transport: its name.
            after: the last id of the page before.
        """
        found = self._tails.state.dead_letters.ids(self._tails.known(key), transport)
        return page(sorted(id for id in found if id > after))

    def show(self, key: str, id: str) -> list[dict[str, Any]]:
        """Return the dead letters of one document, one for each transport that refused it."""
        return [_to_json(each) for each in self._find(key, [id])]

    def retry(self, key: str, ids: list[str] | None = None) -> dict[str, Any]:
        """Retry these documents of a tail, or all; at once, or when the tail runs."""
        tail = self._tails.known(key)
        count = self._tails.state.dead_letters.retry(tail, self._named(key, ids))
        _log.warning("dead_letter.retried", pillow=str(tail), count=count, ids=ids or "all")
        return {"key": str(tail), "retried": count}

    def discard(self, key: str, ids: list[str] | None = None) -> dict[str, Any]:
        """Discard the dead letters of these documents, or all of a tail. They are not written."""
        tail = self._tails.known(key)
        count = self._tails.state.dead_letters.discard(tail, self._named(key, ids))
        _log.warning("dead_letter.discarded", pillow=str(tail), count=count, ids=ids or "all")
        return {"key": str(tail), "discarded": count}

    def _named(self, key: str, ids: list[str] | None) -> list[tuple[str, str]]:
        return [(each.transport, each.id) for each in self._find(key, ids)]

    def _find(self, key: str, ids: list[str] | None) -> list[DeadLetter]:
        tail = self._tails.known(key)
        found = [each for each in self._tails.state.dead_letters.list(tail) if ids is None or each.id in ids]
        missing = sorted(set(ids or ()) - {each.id for each in found})
        if missing:
            raise ValueError(f"{tail} has no dead letter of {', '.join(missing)}")
        return found


#: The order of the list: `first_at`, transport, id.
Place = tuple[Any, ...]


class Listing:
    """Lists the dead letters of a tail, oldest first, page by page.

    Sorting 100,000 of them blocks the process for seconds. So the rest of a list is kept for the client
    that asks for the next page.

    Args:
        dead_letters: of all tails.
    """

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters
        self._rest: list[DeadLetter] = []
        self._at: tuple[TailKey, Place | None] | None = None

    def page(self, tail: TailKey, after: Place | None) -> list[dict[str, Any]]:
        """Return the dead letters after a place, as many as one message takes; empty at the end."""
        if after is None or self._at != (tail, after):
            self._rest = self._list_after(tail, after)
        entries = page(map(_to_json, self._rest))
        self._at = (tail, _place(self._rest[len(entries) - 1])) if entries else None
        self._rest = self._rest[len(entries) :]
        return entries

    def _list_after(self, tail: TailKey, after: Place | None) -> list[DeadLetter]:
        found = sorted(self._dead_letters.list(tail), key=_place)
        return [each for each in found if after is None or _place(each) > after]


def _place(dead_letter: DeadLetter) -> Place:
    return dead_letter.first_at, dead_letter.transport, dead_letter.id


def _to_json(dead_letter: DeadLetter) -> dict[str, Any]:
    return {**msgspec.to_builtins(dead_letter), "pillow": str(dead_letter.tail)}
