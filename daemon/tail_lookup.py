"""How an operator names a tail: by its pillow, or in full as `pillow@connection/database`."""

from __future__ import annotations

from collections.abc import Iterable

from checkpoints import TailKey
from pillows.suggest import find_similar


class UnknownPillowError(ValueError):
    """There is no such pillow."""


def find(text: str, keys: Iterable[TailKey]) -> TailKey:
    """The one key that `text` names.

    Raises:
        UnknownPillowError: it names none of them, or several.
    """
    known = list(keys)
    found = [key for key in known if text in (key.pillow, str(key))]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownPillowError(f"`{text}` is {' and '.join(map(str, found))}. Remedy: say which")
    raise UnknownPillowError(f"there is no pillow `{text}`. Remedy: {_remedy(text, known)}")


def _remedy(text: str, known: list[TailKey]) -> str:
    names = sorted({key.pillow for key in known})
    similar = find_similar(text.partition("@")[0], names)
    if similar:
        return f"did you mean `{similar}`?"
    return f"one of {', '.join(names)}" if names else "configure one"
