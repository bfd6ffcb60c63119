"""Unix sockets: their paths, and sockets that listen there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints.errors import StoreLocked

_MAX_BYTES = 107  # Linux: `sun_path` has 108 bytes, and the last one is zero
_DESCRIPTORS = Path("/proc/self/fd")
_PROBE_SECONDS = 1.0
_BACKLOG = 128


@contextmanager
def open_address(path: Path) -> Iterator[str]:
    """Yield an address for a socket's path, valid inside the block.

    An address holds at most 107 bytes. A longer path is replaced by one through an open descriptor of its
    directory; the socket is still in that directory.

    Raises:
        OSError: there is no such directory.
    """
    if len(os.fsencode(path)) <= _MAX_BYTES or not _DESCRIPTORS.is_dir():
        yield str(path)
        return
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield str(_DESCRIPTORS / str(fd) / path.name)
    finally:
        os.close(fd)


def listen(path: Path, *, mode: int = 0o600) -> socket.socket:
    """Return a socket that listens on a path; the stale one of a crashed process is replaced.

    Args:
        path: the socket's path.
        mode: of the socket's file. Until it is set, only this user may connect.

    Raises:
        StoreLocked: another process answers on this path.
        OSError: the socket cannot be created.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of the socket's own descriptor, less the umask, becomes the file's: a chmod after bind()
        # would leave a moment in which others may connect, and umask() would touch the whole process.
        os.fchmod(listener.fileno(), 0o600)
        _make_room(path)
        with open_address(path) as address:
            listener.bind(address)
        if mode != 0o600:
            path.chmod(mode)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _make_room(path: Path) -> None:
    """Remove a stale socket.

    Raises:
        StoreLocked: a process answers on it.
        PermissionError: it belongs to another user, so we cannot find out whether it is stale.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, open_address(path) as address:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except PermissionError as error:  # which names no file
            raise PermissionError(error.errno, "another user's socket", str(path)) from error
    raise StoreLocked(f"another process answers on {path}")
