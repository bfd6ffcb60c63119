"""The calls about documents that could not be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from daemon.control.paging import page
from daemon.control.tails import Tails
from pillows.dead_letters.store import DeadLetter, DeadLetters

_log = structlog.get_logger("pillowd.operator")


class DeadLetterCalls:
    """Shows dead letters, and has them tried again or forgotten.

    Args:
        tails: what there is.
    """

    def __init__(self, tails: Tails) -> None:
        self._tails = tails
        self._listing = Listing(tails.state.letters)

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """Every call by its name."""
        return {
            "dead-letter.list": self.list_letters,
            "dead-letter.ids": self.ids,
            "dead-letter.show": self.show,
            "dead-letter.retry": self.retry,
            "dead-letter.discard": self.discard,
        }

    def list_letters(self, key: str, after: Sequence[Any] | None = None) -> list[dict[str, Any]]:
        """The documents of a tail that could not be written, oldest first; never their bodies.

        A page of them: those after the letter that was first written at, by the transport, and has the
        id of `after`; empty at the end.
        """
        return self._listing.page(str(self._tails.known(key)), tuple(after) if after else None)

    def ids(self, key: str, transport: str, after: str = "") -> list[str]:
        """Documents that a transport may hold in an older state, in the order of their ids.

        They have a letter of that transport, or failed before any transport saw them. A page of them:
        those after `after`; empty at the end.
        """
        found = self._tails.state.letters.ids(str(self._tails.known(key)), transport)
        return page(sorted(id for id in found if id > after))

    def show(self, key: str, id: str) -> list[dict[str, Any]]:
        """The letters of one document, one for each transport that refused it."""
        return [_shown(letter) for letter in self._letters(key, [id])]

    def retry(self, key: str, ids: list[str] | None = None) -> dict[str, Any]:
        """Has documents tried again, all of a tail's unless named: at once, or when the tail runs."""
        tail = str(self._tails.known(key))
        count = self._tails.state.letters.retry(tail, self._named(key, ids))
        _log.warning("dead_letter.retried", pillow=tail, count=count, ids=ids or "all")
        return {"key": tail, "retried": count}

    def discard(self, key: str, ids: list[str] | None = None) -> dict[str, Any]:
        """Forgets dead letters of a tail: of these documents, or all. They are not written."""
        tail = str(self._tails.known(key))
        count = self._tails.state.letters.discard(tail, self._named(key, ids))
        _log.warning("dead_letter.discarded", pillow=tail, count=count, ids=ids or "all")
        return {"key": tail, "discarded": count}

    def _named(self, key: str, ids: list[str] | None) -> list[tuple[str, str]]:
        return [(letter.transport, letter.id) for letter in self._letters(key, ids)]

    def _letters(self, key: str, ids: list[str] | None) -> list[DeadLetter]:
        tail = str(self._tails.known(key))
        letters = [each for each in self._tails.state.letters.of(tail) if ids is None or each.id in ids]
        missing = sorted(set(ids or ()) - {each.id for each in letters})
        if missing:
            raise ValueError(f"{tail} has no dead letter of {', '.join(missing)}")
        return letters


#: Where a letter stands in the list: when it was first written, its transport, its id.
Place = tuple[Any, ...]


class Listing:
    """The letters of a tail, oldest first, page by page.

    To find the oldest of 100,000 takes seconds, in which nothing else is done. So what a page leaves over
    is kept until its end, for whoever asks for the next one.

    Args:
        letters: of all tails.
    """

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters
        self._rest: list[DeadLetter] = []
        self._at: tuple[str, Place | None] | None = None

    def page(self, tail: str, after: Place | None) -> list[dict[str, Any]]:
        """The letters of a tail behind a place, as many as one message takes; empty at the end."""
        if after is None or self._at != (tail, after):
            self._rest = self._behind(tail, after)
        told = page(_shown(letter) for letter in self._rest)
        self._at = (tail, _place(self._rest[len(told) - 1])) if told else None
        self._rest = self._rest[len(told) :]
        return told

    def _behind(self, tail: str, after: Place | None) -> list[DeadLetter]:
        found = sorted(self._letters.of(tail), key=_place)
        return [letter for letter in found if after is None or _place(letter) > after]


def _place(letter: DeadLetter) -> Place:
    return letter.first_at, letter.transport, letter.id


def _shown(letter: DeadLetter) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(letter)
    return shown
