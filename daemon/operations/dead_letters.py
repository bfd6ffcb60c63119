"""The calls about documents that could not be written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from daemon.operations.tails import Tails
from pillows.deadletters import DeadLetter

_log = structlog.get_logger("pillowd.operator")


class DeadLetterCalls:
    """Shows dead letters, and has them tried again or forgotten.

    Args:
        tails: what there is.
    """

    def __init__(self, tails: Tails) -> None:
        self._tails = tails

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """Every call by its name."""
        return {
            "dead-letter.list": self.list_letters,
            "dead-letter.show": self.show,
            "dead-letter.retry": self.retry,
            "dead-letter.discard": self.discard,
        }

    def list_letters(self, key: str) -> list[dict[str, Any]]:
        """The documents of a tail that could not be written, oldest first; never their bodies."""
        return [_shown(letter) for letter in self._letters(key, None)]

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


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__}
