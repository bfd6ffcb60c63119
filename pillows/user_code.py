"""Errors of a user's code: kept from ending more than they may, and described without a value of it.

A user's filter, transform or transport may raise anything: `sys.exit()` raises SystemExit, a
cancelled task CancelledError, a library GreenletExit. None of these is an `Exception`, and gevent ends
the whole process when SystemExit or KeyboardInterrupt leaves a greenlet (`Hub.SYSTEM_ERROR`).
"""

from __future__ import annotations

import opcode
import sysconfig
from collections.abc import Callable
from functools import cache
from itertools import dropwhile
from pathlib import Path
from traceback import walk_tb
from types import CodeType, TracebackType
from typing import NoReturn

from greenlet import GreenletExit

from pillows.errors import PillowError

#: A longer description is cut.
MAX_ERROR_CHARACTERS = 500

_OURS = str(Path(__file__).parent) + "/"
#: What `end_without_memory` was given.
_ends: list[Callable[[], NoReturn]] = []
_RAISE = {opcode.opmap["RAISE_VARARGS"], opcode.opmap["RERAISE"]}


class UserCodeExit(PillowError):
    """User code raised something that is not an `Exception`; it is the cause."""


def end_without_memory(end: Callable[[], NoReturn]) -> None:
    """Let this process end when memory is refused to a user's code, which need not be to blame for it.

    Args:
        end: ends the process, without taking memory.
    """
    _ends.append(end)


def confine(error: BaseException) -> Exception:
    """Return an error of a user's code as an `Exception`.

    Raises:
        GreenletExit, KeyboardInterrupt: the greenlet is being killed, or the program interrupted.
    """
    if isinstance(error, MemoryError) and _ends:
        _ends[0]()
    if isinstance(error, Exception):
        return error
    if isinstance(error, GreenletExit | KeyboardInterrupt) and not _is_raised(error.__traceback__):
        raise error
    confined = UserCodeExit(describe_error(error))
    confined.__cause__ = error
    return confined.with_traceback(error.__traceback__)


def describe_error(error: BaseException, *, with_text: bool = False) -> str:
    """Return an error's type and the line that raised it; of our own errors the text as well.

    Args:
        error: the error raised.
        with_text: whether to add the text of any error, which may quote a document.
    """
    if isinstance(error, UserCodeExit) and error.__cause__ is not None:
        error = error.__cause__
    place = locate_user_code(error)
    words = type(error).__name__
    if with_text or isinstance(error, PillowError):
        words += f": {_read_text(error)}"
    else:
        place = place or _locate(_list_lines(error)[-1:])
    place = f" ({place})" if place else ""
    return words[: max(0, MAX_ERROR_CHARACTERS - len(place))] + place


def describe_greenlet(greenlet: object) -> str:
    """Return a greenlet's name and function. Its `repr` has the arguments, which may be documents."""
    function = getattr(greenlet, "_run", None)
    name = getattr(function, "__qualname__", type(function).__name__)
    return f"{getattr(greenlet, 'name', type(greenlet).__name__)}: {name}"


def locate_user_code(error: BaseException) -> str:
    """Return the line of user code that raised, as `file:line, in function`; empty if there was none.

    That is the innermost line which is neither pillowd's nor of a library; where all the user's code is
    installed as a library, the one that pillowd called.
    """
    beyond = [each for each in _list_lines(error) if not each[0].co_filename.startswith(_OURS)]
    own = [each for each in beyond if not each[0].co_filename.startswith(_list_libraries())]
    return _locate(own[-1:] or beyond[:1])


def _locate(lines: list[tuple[CodeType, int]]) -> str:
    return "".join(f"{code.co_filename}:{line}, in {code.co_name}" for code, line in lines)


def _list_lines(error: BaseException) -> list[tuple[CodeType, int]]:
    """Return the running code, from the outside in, from pillowd's first own line on if there is one."""
    running = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    return list(dropwhile(lambda each: not each[0].co_filename.startswith(_OURS), running)) or running


def _is_raised(traceback: TracebackType | None) -> bool:
    """Whether a `raise` statement raised. A kill arrives where a greenlet waits, a signal anywhere."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None or traceback.tb_lasti < 0:
        return False
    return traceback.tb_frame.f_code.co_code[traceback.tb_lasti] in _RAISE


def _read_text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failure:  # noqa: BLE001 - `__str__` is a user's code, too
        return f"its text cannot be read: {type(confine(failure)).__name__}"


@cache
def _list_libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(f"{paths[name]}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
