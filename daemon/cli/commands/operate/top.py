"""`pillowd top`."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import click
import gevent
from rich.console import Console
from rich.live import Live

from checkpoints import StoreUnavailable
from daemon.cli.control_client import open_stream
from daemon.cli.exit_codes import UnreachableError
from daemon.cli.options import config_option
from daemon.cli.top_view import TopView
from daemon.config.load import load
from daemon.errors import RequestError
from daemon.http.event_reader import Message
from daemon.process import signals

#: Interval of the screen, and of the tables on a terminal that cannot be drawn on.
_SCREEN_SECONDS, _TABLE_SECONDS = 1.0, 5.0
_RECONNECT_SECONDS = 1.0


@click.command()
@config_option
def top(config_path: Path) -> None:
    """Show all pillows live, the worst first, until q or Ctrl-C.

    In a pipe or on a simple terminal, print a table every 5 s.
    """
    config = load(config_path, plugins=False)
    view = TopView()
    with open_stream(config, "stream_events") as messages:  # first: whoever runs nothing is told so at once
        _apply(view, messages)
    reader = gevent.spawn(_follow, view, lambda: open_stream(config, "stream_events"))
    console = Console()
    try:
        with signals.track_sigint() as interrupted, suppress(KeyboardInterrupt):
            if console.is_terminal and not console.is_dumb_terminal:
                _draw(view, console, interrupted.is_set)
            else:
                _print_tables(view, console, interrupted.wait)
    finally:
        reader.kill()


def _apply(view: TopView, messages: Iterator[Message]) -> None:
    """Apply the first status of a stream."""
    for message in messages:
        if message.event == "status":
            view.apply(message.data, time.time())
            return


def _follow(view: TopView, connect: Callable[[], AbstractContextManager[Iterator[Message]]]) -> None:
    """Apply every status; connect again whenever the stream ends."""
    while True:
        try:
            with connect() as messages:
                for message in messages:
                    if message.event == "status":
                        view.apply(message.data, time.time())
        except (StoreUnavailable, UnreachableError, RequestError) as error:
            view.lost = str(error)
        gevent.sleep(_RECONNECT_SECONDS)


def _draw(view: TopView, console: Console, is_over: Callable[[], bool]) -> None:
    with Live(console=console, auto_refresh=False, screen=True) as live, _read_keys() as read_key:
        while not is_over():
            view.sample()
            live.update(view.render(time.time(), lines=console.height, width=console.width), refresh=True)
            if read_key(_SCREEN_SECONDS) in ("q", "Q"):
                return


def _print_tables(view: TopView, console: Console, wait: Callable[[float], object]) -> None:
    plain = Console(width=None if console.is_terminal else 200, highlight=False, color_system=None)
    is_over = False
    while not is_over:
        plain.print(view.render(time.time(), lines=sys.maxsize, with_bars=False))
        sys.stdout.flush()
        is_over = bool(wait(_TABLE_SECONDS))


def _read_no_key(seconds: float) -> str:
    gevent.sleep(seconds)
    return ""


@contextmanager
def _read_keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key, as many seconds as it is given, and returns it or nothing."""
    if not sys.stdin.isatty():
        yield _read_no_key
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)  # a key counts at once, and Ctrl-C stays a signal

    def read_key(seconds: float) -> str:
        ready, _, _ = select.select([keyboard], [], [], seconds)
        return os.read(keyboard, 1).decode(errors="replace") if ready else ""

    try:
        yield read_key
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
