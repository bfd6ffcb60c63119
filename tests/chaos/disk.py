"""A disk that is so small that a test can fill it."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

SIZE = "64m"
_CLONE_NEWNS = 0x00020000


def small_disk(folder: Path) -> bool:
    """Mounts one on a folder, for this process and its children alone; whether that could be done.

    It takes the right to mount. It is gone with this process, however that ends.
    """
    return _own_mounts() and _done(
        "mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)
    )


def take_away(folder: Path) -> None:
    """Unmounts it, with all that is on it."""
    _done("umount", "--lazy", str(folder))


@cache
def _own_mounts() -> bool:
    unshared = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) == 0
    return unshared and _done("mount", "--make-rprivate", "/")


def _done(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
