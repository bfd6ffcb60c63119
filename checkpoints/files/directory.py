"""A directory whose files are replaced so that a crash leaves the old one or the new one, never a mix.

Everything goes through the directory's descriptor: a directory that was removed and made anew under
the same path is another one, and a store that still holds the old one gets an error instead of
writing into its successor.

The order is: write a temporary file, `fsync` it, rename it over the old one, `fsync` the directory.
Without the first `fsync` the new name may point to an empty file after a power failure, without the
second the rename itself may be lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

from checkpoints.errors import StoreLocked

LOCK = ".lock"

_TEMPORARY = re.compile(r"^(\d+\.json(\.gz)?|\.meta)\.tmp-\d+$")


class Directory:
    """An open directory.

    Attributes:
        path: where it was when it was opened.
        durable: whether `replace` and `sync` wait for the disk.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, *, durable: bool = True) -> Directory:
        """Opens `path`, made with its parents where it is missing.

        Raises:
            NotADirectoryError, FileExistsError: something else is there.
        """
        _make(path, 0o750)
        return cls(path, durable=durable)

    def lock(self) -> None:
        """Takes the directory for this process until `close`, also against `kill -9` of this process.

        Raises:
            StoreLocked: another process has it; the message names its pid.
        """
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreLocked(f"{self.path} is open for writing in process {holder}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock = fd

    @property
    def gone(self) -> bool:
        """Whether the path names another directory by now, or none."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._fd))

    def names(self) -> list[str]:
        """The names of the files in it."""
        return os.listdir(self._fd)

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        with open(name, "rb", opener=self._opener) as file:
            return file.read()

    def replace(self, name: str, data: bytes) -> None:
        """Puts a new file in the place of `name`; durable after the next `sync`.

        Raises:
            OSError: the disk refused; the old file is untouched.
        """
        temporary = f"{name}.tmp-{os.getpid()}"
        try:
            self._write(temporary, data)
            self._rename(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):  # what is left is removed when the store is opened again
                self.remove(temporary)
            raise

    def remove(self, name: str) -> None:
        """Removes a file, if it is there; durable after the next `sync`."""
        with contextlib.suppress(FileNotFoundError):
            self._unlink(name)

    def remove_leftovers(self) -> None:
        """Removes the temporary files that a crash left."""
        for name in self.names():
            if _TEMPORARY.match(name):
                self.remove(name)

    def sync(self) -> None:
        """Makes the names durable: until then a rename or a removal may be undone by a power failure."""
        if self.durable:
            self._fsync(self._fd)

    def close(self) -> None:
        """Lets the directory go, and its lock; safe to call twice.

        The lock is let go by closing alone: in a forked child an explicit unlock would take it from
        the parent.
        """
        for fd in (self._fd, self._lock):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._fd, self._lock = -1, None

    def _opener(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._fd)

    def _write(self, name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(name, flags, 0o640, dir_fd=self._fd)  # values may hold credentials of URLs
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._put(fd, rest) :]
            if self.durable:
                self._fsync(fd)
        finally:
            os.close(fd)

    def _put(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def _fsync(self, fd: int) -> None:
        os.fsync(fd)

    def _rename(self, source: str, target: str) -> None:
        os.rename(source, target, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)


def _make(path: Path, mode: int = 0o777) -> None:
    """Makes a directory with its parents, each durable in the one above it."""
    if path.is_dir():
        return
    _make(path.parent)
    with contextlib.suppress(FileExistsError):  # made by another process meanwhile, or no directory
        path.mkdir(mode)
    _sync_path(path.parent)


def _sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
