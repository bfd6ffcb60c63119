"""Mount a disk small enough for a test to fill."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

SIZE = "64m"
_CLONE_NEWNS = 0x00020000


def mount_small_disk(folder: Path) -> bool:
    """Mount a small disk on a folder; return whether that was possible. It takes the right to mount.

    Only this process and its children see the disk. The kernel removes it when this process ends.
    """
    return _unshare_mounts() and _run(
        "mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)
    )


def unmount(folder: Path) -> None:
    """Unmount the disk; everything on it is lost."""
    _run("umount", "--lazy", str(folder))


@cache
def _unshare_mounts() -> bool:
    unshared = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) == 0
    return unshared and _run("mount", "--make-rprivate", "/")


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
