"""The tails of a configuration, and how an operator names one: `pillow`, or `pillow@connection/database`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from checkpoints import TailKey
from daemon.errors import UnknownPillowError
from pillows.suggest import find_similar

if TYPE_CHECKING:  # `pillowd --help` needs the error, and must not load the configuration's models
    from daemon.config.models import Config, PillowConfig


#: A command in a remedy that needs a pillow and does not name one, up to where the name belongs.
_UNNAMED = re.compile(
    r"`(pillowd (?:checkpoint (?:get|history|set|reset|rewind|export|import)|dead-letter \w+|verify|preview"
    r"|rebuild(?: status| switch| cancel| rollback| drop)?|pause|resume|restart))(?: KEY(?=[` ])|(?=`| -))"
)


def name_tail(text: str, key: TailKey) -> str:
    """Return a reason in which every command names the tail, so that it can be run as it is printed.

    The packages that write such remedies know nothing of the command's arguments.
    """
    return _UNNAMED.sub(lambda found: f"`{found[1]} {key}", text)


def tail_key(name: str, pillow: PillowConfig) -> TailKey:
    """Return the key of a pillow's tail."""
    return TailKey(name, pillow.source.name)


def tail_keys(config: Config) -> list[TailKey]:
    """Return the keys of all enabled pillows' tails, in configured order."""
    return [tail_key(name, pillow) for name, pillow in config.tails.items() if pillow.enabled]


def is_pattern(key: TailKey) -> bool:
    """Return whether a key is that of several databases together: no name of a database has such letters."""
    return any(letter in key.database for letter in "*?[,")


def find_member(text: str, keys: Iterable[TailKey]) -> TailKey | None:
    """Return the tail of one of several databases that `text` names; None if it names no such tail.

    Args:
        text: `pillow@connection/database`.
        keys: the configured tails.
    """
    pillow, _, source = text.partition("@")
    member = TailKey(pillow, source)
    return member if any(find_members(key, [member]) for key in keys) else None


def find_members(pattern: TailKey, keys: Iterable[TailKey]) -> list[TailKey]:
    """Return the given tails that are of single databases of a pillow that reads several.

    Args:
        pattern: the key of the pillow; if it reads one database, the result is empty.
        keys: the tails.
    """
    if not is_pattern(pattern):
        return []
    from pillows.databases.names import DatabaseNames  # noqa: PLC0415  see above

    names = DatabaseNames(pattern.database.split(","))
    connection = pattern.source.partition("/")[0]
    return [
        key
        for key in keys
        if key.pillow == pattern.pillow
        and key.source.partition("/")[0] == connection
        and names.matches(key.database)
    ]


def resolve_tail(text: str, keys: Iterable[TailKey]) -> TailKey:
    """Return the key that `text` names.

    Raises:
        UnknownPillowError: `text` names no tail, or several.
    """
    known = list(keys)
    found = [key for key in known if text in (key.pillow, str(key))]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownPillowError(f"`{text}` is {' and '.join(map(str, found))}", remedy="say which")
    raise UnknownPillowError(f"there is no pillow `{text}`", remedy=_remedy(text, known))


def resolve_configured(text: str, config: Config) -> TailKey:
    """Return the key of the configured tail that `text` names, or of one database of a pillow on several.

    Raises:
        UnknownPillowError: it names no tail, or several.
    """
    keys = tail_keys(config)
    try:
        return resolve_tail(text, keys)
    except UnknownPillowError:
        member = find_member(text, keys)
        if member is None:
            raise
        return member


def resolve_database(text: str, config: Config) -> TailKey:
    """Return the key of the one database's tail that `text` names.

    Raises:
        UnknownPillowError: it names no tail, or several databases.
    """
    return refuse_pattern(resolve_configured(text, config))


def refuse_pattern(key: TailKey) -> TailKey:
    """Return the key of one database's tail.

    Raises:
        UnknownPillowError: the key names several databases.
    """
    if is_pattern(key):
        raise UnknownPillowError(
            f"`{key}` reads several databases",
            remedy=f"name one: `{key.pillow}@CONNECTION/DATABASE`; `pillowd databases {key.pillow}` lists "
            "them",
        )
    return key


def _remedy(text: str, known: list[TailKey]) -> str:
    names = sorted({key.pillow for key in known})
    similar = find_similar(text.partition("@")[0], names)
    if similar:
        return f"did you mean `{similar}`?"
    return f"one of {', '.join(names)}" if names else "configure one"
