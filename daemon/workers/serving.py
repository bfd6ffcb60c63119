"""Serve the daemon: read its tasks ahead, and send signs of life."""

from __future__ import annotations

from contextlib import suppress

import gevent
from gevent import socket
from gevent.queue import Queue

from daemon.workers.work import open_work
from pillows.parallel import protocol
from pillows.parallel.protocol import ProtocolError
from pillows.parallel.worker import ALIVE_SECONDS, Channel, serve


def serve_daemon(fd: int) -> None:
    """Do tasks until the daemon ends.

    Args:
        fd: the descriptor of the socket to the daemon.
    """
    with socket.socket(fileno=fd) as stream:
        channel = Channel(stream)
        tasks: Queue[protocol.ToWorker | None] = Queue(1)
        reader = gevent.spawn(_read_ahead, stream, tasks)
        alive = gevent.spawn(_show_life, channel)
        try:
            with suppress(OSError):  # the daemon is gone
                serve(channel, tasks.get, open_work)
        finally:
            gevent.killall([reader, alive])


def _read_ahead(stream: protocol.Stream, tasks: Queue[protocol.ToWorker | None]) -> None:
    """Read the next task during the current one, so that it can start at once."""
    message: protocol.ToWorker | None = None
    try:
        with suppress(OSError, ProtocolError):  # the daemon is gone
            while (message := protocol.receive_in_worker(stream)) is not None:
                tasks.put(message)
    finally:  # also without memory
        tasks.put(None)


def _show_life(channel: Channel) -> None:
    """Send signs of life as long as the hub runs. A function that blocks the hub stops them."""
    while True:
        gevent.sleep(ALIVE_SECONDS)
        with suppress(OSError):
            channel.tick()
