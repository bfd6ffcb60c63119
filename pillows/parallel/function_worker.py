"""The program of a worker that calls a user's function; its argument is the descriptor of its socket."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from functools import partial

import msgspec

from pillows.parallel import protocol
from pillows.parallel.functions import FunctionSetup, FunctionWork
from pillows.parallel.worker import Channel, serve


def main(fd: int) -> None:
    """Serve the coordinator at the other end of a socket.

    Args:
        fd: the socket's descriptor.
    """
    with socket.socket(fileno=fd) as stream, suppress(OSError):  # the coordinator is gone
        stream.setblocking(True)  # the coordinator's end is one of gevent's
        serve(Channel(stream), partial(protocol.receive_in_worker, stream), _open_work)


def _open_work(payload: msgspec.Raw, _: Channel) -> FunctionWork:
    return FunctionWork(msgspec.msgpack.decode(payload, type=FunctionSetup))


if __name__ == "__main__":
    main(int(sys.argv[1]))
