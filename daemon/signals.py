"""What the process is told from outside: SIGTERM, SIGINT, SIGHUP.

A handler only counts and wakes; whoever waits then decides. It runs between two bytecodes of
whatever greenlet happens to run, so it must neither wait nor log.

Whoever waits for `stop` does so with a timeout: a hub on which nothing but an event is waited for
has nothing that could ever wake it, and gevent ends such a wait at once with LoopExit.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import gevent
from gevent.event import Event

_STOPPING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """What has been asked so far.

    Attributes:
        stop: set by the first SIGTERM or SIGINT: finish and end.
        cut: set by the second one: end now.
        reloads: how many SIGHUP came.
    """

    def __init__(self) -> None:
        self.stop = Event()
        self.cut = Event()
        self.reloads = 0

    def _received(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            self.reloads += 1
            return
        event = self.cut if self.stop.is_set() else self.stop
        event.set()
        # Waiters are woken on the hub, which may be asleep in its poll right now.
        gevent.get_hub().loop.run_callback_threadsafe(lambda: None)


@contextmanager
def installed(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Has a handler handle signals inside the `with`, and puts back what was there before.

    Raises:
        ValueError: not in the main thread, where Python handles signals.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def interrupts() -> Iterator[Event]:
    """SIGINT raises KeyboardInterrupt as ever, and is remembered inside the `with`.

    The exception is lost where it comes while a destructor or a callback of the hub runs: Python prints
    and ignores it there. Whoever loops until interrupted looks at the event as well.

    Yields:
        set once SIGINT has come.

    Raises:
        ValueError: not in the main thread, where Python handles signals.
    """
    came = Event()

    def remember(signum: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(signum, frame)

    with installed(remember, signal.SIGINT):
        yield came


@contextmanager
def handled() -> Iterator[Signals]:
    """Handles the signals inside the `with`, and puts back what was there before.

    Yields:
        what is asked.

    Raises:
        ValueError: not in the main thread, where Python handles signals.
    """
    signals = Signals()
    with installed(signals._received, *_STOPPING, signal.SIGHUP):  # noqa: SLF001  one unit
        yield signals
