"""Control calls that list, retry and discard dead letters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import structlog

from checkpoints import TailKey
from daemon.control.paging import page
from daemon.control.tails import Tails
from daemon.errors import InvalidRequestError, NotFoundError
from pillows.dead_letters.store import DeadLetter, DeadLetters

_log = structlog.get_logger("pillowd.operator")


class DeadLetterCalls:
    """Lists, retries and discards dead letters.

    Args:
        tails: finds tails by name.
    """

    def __init__(self, tails: Tails) -> None:
        self._tails = tails
        self._listing = Listing(tails.state.dead_letters)

    def list_page(self, tail: TailKey, after: str = "", limit: int = 1000) -> dict[str, Any]:
        """Return a page of a tail's dead letters, oldest first.

        Args:
            tail: the tail.
            after: `next` of the page before.
            limit: most entries of the page.

        Raises:
            InvalidRequestError: `after` is not a valid position.
        """
        return self._listing.page(self._tails.list_with_letters(tail), parse_place(after), limit)

    def ids(self, tail: TailKey, transport: str, after: str = "") -> dict[str, Any]:
        """Return a page of ids, in order, of documents with a dead letter of a transport or of the pipeline.

        The transport's target may hold older versions of these documents.

        Args:
            tail: the tail.
            transport: its name.
            after: `next` of the page before.

        Raises:
            InvalidRequestError: `after` is not a valid position.
        """
        start = _parse(after, IdPlace) if after else None
        letters = self._tails.state.dead_letters
        found = {id for each in self._tails.list_with_letters(tail) for id in letters.ids(each, transport)}
        rest = sorted((id for id in found if start is None or _id_place(id) > start), key=_id_place)
        ids = page(rest)
        return {"ids": ids, "next": format_place(_id_place(ids[-1])) if len(ids) < len(rest) else None}

    def show(self, tail: TailKey, ids: Collection[str]) -> list[dict[str, Any]]:
        """Return the dead letters of these documents.

        A document has one for each transport that refused it, or one for the pipeline if it failed before any
        transport saw it.

        Raises:
            NotFoundError: a document has no dead letter.
        """
        return [_to_json(each) for each in self._find(tail, ids)]

    def retry(self, tail: TailKey, ids: Collection[str] | None = None) -> dict[str, Any]:
        """Retry these documents of a tail, or all; at once, or when the tail runs.

        Raises:
            NotFoundError: a document has no dead letter.
        """
        retry = self._tails.state.dead_letters.retry
        count = sum(retry(each, named) for each, named in self._named(tail, ids).items())
        _log.warning("dead_letter.retried", pillow=str(tail), count=count, ids=_some(ids))
        return {"key": str(tail), "retried": count}

    def discard(self, tail: TailKey, ids: Collection[str] | None = None) -> dict[str, Any]:
        """Discard the dead letters of these documents, or all of a tail. They are not written.

        Raises:
            NotFoundError: a document has no dead letter.
        """
        discard = self._tails.state.dead_letters.discard
        count = sum(discard(each, named) for each, named in self._named(tail, ids).items())
        _log.warning("dead_letter.discarded", pillow=str(tail), count=count, ids=_some(ids))
        return {"key": str(tail), "discarded": count}

    def _named(self, tail: TailKey, ids: Collection[str] | None) -> dict[TailKey, list[tuple[str, str]]]:
        named: dict[TailKey, list[tuple[str, str]]] = {}
        for each in self._find(tail, ids):
            named.setdefault(each.tail, []).append((each.transport, each.id))
        return named

    def _find(self, tail: TailKey, ids: Collection[str] | None) -> list[DeadLetter]:
        letters = self._tails.state.dead_letters
        stored = [each for its in self._tails.list_with_letters(tail) for each in letters.list(its)]
        found = [each for each in stored if ids is None or each.id in ids]
        missing = sorted(set(ids or ()) - {each.id for each in found})
        if missing:
            raise NotFoundError(f"{tail} has no dead letter for {', '.join(missing[:_NAMED_IDS])}")
        return found


def _some(ids: Collection[str] | None) -> Any:
    return "all" if ids is None else list(ids)


#: Ids that an error names; a request may hold thousands.
_NAMED_IDS = 10

#: Characters of an id in a place, which is part of a URL; ids may have many thousands.
_ID_CHARACTERS = 200

#: The order of ids: their first characters, and a digest of a longer one.
IdPlace = tuple[str, str]
#: The order of the list: `first_at`, transport, place of the id.
Place = tuple[float, str, IdPlace]


class Listing:
    """Lists the dead letters of tails, oldest first, page by page.

    Sorting 100,000 of them blocks the process for seconds. So the rest of a list is kept for the client
    that asks for the next page.

    Args:
        dead_letters: of all tails.
    """

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters
        self._rest: list[DeadLetter] = []
        self._at: tuple[Sequence[TailKey], Place | None] | None = None

    def page(self, tails: Sequence[TailKey], after: Place | None, limit: int) -> dict[str, Any]:
        """Return the dead letters after a place, and the place of the last one if there are more."""
        if after is None or self._at != (tails, after):
            self._rest = self._list_after(tails, after)
        entries = page(map(_to_json, self._rest[:limit]))
        last = _place(self._rest[len(entries) - 1]) if entries else None
        self._at = (tails, last) if entries else None
        self._rest = self._rest[len(entries) :]
        return {"dead_letters": entries, "next": format_place(last) if self._rest and last else None}

    def _list_after(self, tails: Sequence[TailKey], after: Place | None) -> list[DeadLetter]:
        found = sorted((each for tail in tails for each in self._dead_letters.list(tail)), key=_place)
        return [each for each in found if after is None or _place(each) > after]


def format_place(place: Place | IdPlace) -> str:
    """Return a place as text, as `next` has it."""
    return json.dumps(place, ensure_ascii=False, separators=(",", ":"))


def parse_place(text: str) -> Place | None:
    """Return the place that `format_place` formatted; None for an empty text.

    Raises:
        InvalidRequestError: it is not a valid one.
    """
    return _parse(text, Place) if text else None


def _parse(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError("`after` is not the `next` of a page") from error


def _place(dead_letter: DeadLetter) -> Place:
    return dead_letter.first_at, dead_letter.transport, _id_place(dead_letter.id)


def _id_place(id: str) -> IdPlace:
    if len(id) <= _ID_CHARACTERS:
        return id, ""
    return id[:_ID_CHARACTERS], hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()


def _to_json(dead_letter: DeadLetter) -> dict[str, Any]:
    return {**msgspec.to_builtins(dead_letter), "pillow": str(dead_letter.tail)}
