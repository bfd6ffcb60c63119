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
    return TailKey(name, f"{pillow.source.connection}/{pillow.source.database}")


def tail_keys(config: Config) -> list[TailKey]:
    """Return the keys of all enabled pillows' tails, in configured order."""
    return [tail_key(name, pillow) for name, pillow in config.tails.items() if pillow.enabled]


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


def _remedy(text: str, known: list[TailKey]) -> str:
    names = sorted({key.pillow for key in known})
    similar = find_similar(text.partition("@")[0], names)
    if similar:
        return f"did you mean `{similar}`?"
    return f"one of {', '.join(names)}" if names else "configure one"
