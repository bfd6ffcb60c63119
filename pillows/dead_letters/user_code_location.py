"""Where in a user's code an error came from: file, line and function, never a value."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from functools import cache
from itertools import dropwhile
from pathlib import Path
from traceback import walk_tb
from types import CodeType

_OURS = str(Path(__file__).parents[1]) + "/"


def locate_user_code(error: BaseException) -> str:
    """Return the line of user code that raised, as `file:line, in function`; empty if there was none.

    That is the innermost line which is neither pillowd's nor of a library; where all the user's code is
    installed as a library, the one that pillowd called.
    """
    beyond = [(code, line) for code, line in _lines(error) if not code.co_filename.startswith(_OURS)]
    if not beyond:
        return ""
    own = [(code, line) for code, line in beyond if not code.co_filename.startswith(_libraries())]
    code, line = own[-1] if own else beyond[0]
    return f"{code.co_filename}:{line}, in {code.co_name}"


def _lines(error: BaseException) -> Iterator[tuple[CodeType, int]]:
    """Yield the running code, from the outside in, from pillowd's first own line on."""
    running = ((frame.f_code, line) for frame, line in walk_tb(error.__traceback__))
    return dropwhile(lambda each: not each[0].co_filename.startswith(_OURS), running)


@cache
def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[name]}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
