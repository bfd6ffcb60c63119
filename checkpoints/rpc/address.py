"""Paths of unix sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_BYTES = 107  # Linux: `sun_path` has 108 bytes, and the last one is zero
_DESCRIPTORS = Path("/proc/self/fd")


@contextmanager
def open_address(path: Path) -> Iterator[str]:
    """Enter a block in which a socket's path has an address, however long it is.

    A path that is too long for an address is reached through a descriptor of its directory. The socket is in
    that directory nevertheless.

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
