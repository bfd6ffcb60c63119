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
