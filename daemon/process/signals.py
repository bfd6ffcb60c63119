"""SIGTERM, SIGINT and SIGHUP, as events that the daemon waits for.

A handler only sets an event or counts. It runs between two bytecodes of any greenlet, so it must
neither wait nor log.

Wait for `stop` with a timeout: gevent ends a wait at once with LoopExit when the hub has nothing else
that could ever wake it.
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
    """The signals received so far.

    Attributes:
        stop: set by the first SIGTERM or SIGINT: drain and end.
        force_stop: set by the second one: end now.
        reloads: number of SIGHUPs.
    """

    def __init__(self) -> None:
        self.stop = Event()
        self.force_stop = Event()
        self.reloads = 0

    def receive(self, signum: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if signum == signal.SIGHUP:
            self.reloads += 1
            return
        event = self.force_stop if self.stop.is_set() else self.stop
        event.set()
        # The hub wakes the waiters, and may be asleep in its poll right now.
        gevent.get_hub().loop.run_callback_threadsafe(lambda: None)


@contextmanager
def install_handlers(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Install a handler for signals, and restore the former ones at the end of the `with`.

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
def track_sigint() -> Iterator[Event]:
    """Remember the first SIGINT; a second one raises KeyboardInterrupt as usual.

    Raised in a destructor or a callback of the hub, the exception would be printed with a traceback, and
    ignored. So a loop that runs until interrupted checks the event instead.

    Yields:
        an event, set once SIGINT has arrived.

    Raises:
        ValueError: not in the main thread, where Python handles signals.
    """
    interrupted = Event()

    def remember(signum: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            signal.default_int_handler(signum, frame)
        interrupted.set()

    with install_handlers(remember, signal.SIGINT):
        yield interrupted


@contextmanager
def handle_signals() -> Iterator[Signals]:
    """Handle SIGTERM, SIGINT and SIGHUP until the end of the `with`.

    Yields:
        the signals received so far.

    Raises:
        ValueError: not in the main thread, where Python handles signals.
    """
    signals = Signals()
    with install_handlers(signals.receive, *_STOPPING, signal.SIGHUP):
        yield signals
