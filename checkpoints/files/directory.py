"""Replace and append to files in a directory so that a crash loses no synced data.

All access is through the directory's descriptor. If a directory is removed and created again under the same
path, a store that has the old one open gets an error instead of writing into the new one.

A replacement is: write a temporary file, `fsync` it, rename it over the old one, `fsync` the directory.
Without the first `fsync` the new name may point to an empty file after a power failure, without the
second the rename itself may be lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from checkpoints.errors import StoreClosed, StoreError, StoreLocked

LOCK = ".lock"

_TEMPORARY = re.compile(r"^(\d+\.json(\.gz)?|\.meta|journal)\.tmp-\d+$")
_FILE_MODE = 0o640  # values may hold credentials of URLs


class Directory:
    """An open directory.

    Attributes:
        path: its path when it was opened.
        durable: whether `replace`, `append` and `sync` wait for the disk.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock: int | None = None
        self._pid = os.getpid()

    @classmethod
    def create(cls, path: Path, *, durable: bool = True) -> Directory:
        """Open `path`; create it, with its parents, if it is missing.

        Raises:
            NotADirectoryError, FileExistsError: something else is there.
        """
        _make(path, 0o750)
        return cls(path, durable=durable)

    @classmethod
    def open_locked(cls, path: Path, *, durable: bool = True) -> Directory:
        """Create, open and lock `path` for one writer, and remove the leftovers of a crash.

        Raises:
            StoreLocked: another process has it; the message names its pid.
            NotADirectoryError, FileExistsError: something else is there.
        """
        directory = cls.create(path, durable=durable)
        try:
            directory.lock()
            directory.remove_leftovers()
        except BaseException:
            directory.close()
            raise
        return directory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Keep other processes out until `close`, or until this process dies.

        Raises:
            StoreLocked: another process has it; the message names its pid.
        """
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreLocked(f"{self.path} is open for writing in process {holder}") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock = fd

    def ensure_open(self) -> None:
        """Raise if the directory is closed, or was opened before this process was forked.

        Raises:
            StoreClosed: it was closed.
            StoreError: another process opened it.
        """
        if self._pid != os.getpid():
            raise StoreError(
                f"{self.path} belongs to process {self._pid}, from which this one was forked: use a SharedPOD"
            )
        if self._fd < 0:
            raise StoreClosed(f"{self.path} is closed")

    @property
    def closed(self) -> bool:
        """Whether it was closed, or was opened before this process was forked."""
        return self._fd < 0 or self._pid != os.getpid()

    @property
    def gone(self) -> bool:
        """Whether the path no longer names this directory."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._fd))

    def names(self) -> list[str]:
        """List the names of the files in it."""
        return os.listdir(self._fd)

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: no file has that name.
        """
        with open(name, "rb", opener=self._opener) as file:
            return file.read()

    def replace(
        self,
        name: str,
        data: bytes | Iterator[bytes],
        *,
        mode: int = _FILE_MODE,
        temporary: str | None = None,
    ) -> int:
        """Replace the file `name`, or make it; durable after the next `sync`. Return its size in bytes.

        Args:
            name: the file.
            data: its new content, as a whole or in pieces.
            mode: its permissions, before the umask.
            temporary: name of the temporary file; by default it holds the process's pid.

        Raises:
            OSError: the write failed; the old file is untouched.
        """
        temporary = temporary or f"{name}.tmp-{os.getpid()}"
        try:
            size_bytes = self._write(temporary, iter([data]) if isinstance(data, bytes) else data, mode)
            self._rename(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):  # `open_locked` removes leftovers
                self.remove(temporary)
            raise
        return size_bytes

    def append(self, name: str, data: bytes) -> None:
        """Append to the file `name`; durable when this returns.

        Raises:
            FileNotFoundError: no file has that name.
            OSError: the write failed. The file may hold any part of `data`, now or after a crash.
        """
        self._write_to(self._opener(name, os.O_WRONLY | os.O_APPEND), iter([data]))

    def link(self, name: str, other: str) -> None:
        """Give the file `name` a second name; durable after the next `sync`.

        Raises:
            FileExistsError: `other` is taken.
            OSError: the write failed.
        """
        os.link(name, other, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a file if it is there; durable after the next `sync`."""
        with contextlib.suppress(FileNotFoundError):
            self._unlink(name)

    def remove_leftovers(self) -> None:
        """Remove the temporary files that a crash left."""
        for name in self.names():
            if _TEMPORARY.match(name):
                self.remove(name)

    def sync(self) -> None:
        """Make the names durable: until then a power failure may undo a rename or a removal."""
        if self.durable:
            self._fsync(self._fd)

    def close(self) -> None:
        """Close the directory and release its lock; safe to call twice.

        The lock ends with its descriptor. An explicit unlock in a forked child would release the parent's
        lock, too.
        """
        for fd in (self._fd, self._lock):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._fd, self._lock = -1, None

    def _opener(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._fd)

    def _write(self, name: str, pieces: Iterator[bytes], mode: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return self._write_to(os.open(name, flags, mode, dir_fd=self._fd), pieces)

    def _write_to(self, fd: int, pieces: Iterator[bytes]) -> int:
        """Write to a descriptor, and close it. Return the number of bytes."""
        size_bytes = 0
        try:
            for piece in pieces:
                size_bytes += len(piece)
                rest = memoryview(piece)
                while rest:
                    rest = rest[self._put(fd, rest) :]
            if self.durable:
                self._fsync(fd)
        finally:
            os.close(fd)
        return size_bytes

    def _put(self, fd: int, data: memoryview) -> int:
        return os.write(fd, data)

    def _fsync(self, fd: int) -> None:
        os.fsync(fd)

    def _rename(self, source: str, target: str) -> None:
        os.rename(source, target, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _unlink(self, name: str) -> None:
        os.unlink(name, dir_fd=self._fd)


def replace_file(path: Path, data: bytes, *, mode: int = _FILE_MODE) -> None:
    """Replace a file so that a crash leaves the old one or the new one; durable when this returns.

    A crash may also leave the temporary file, `NAME.new`; the next replacement overwrites it. For files
    that one writer at a time replaces.

    Raises:
        OSError: the write failed. The old file is there, or the new one if only its `fsync` failed.
    """
    with Directory(path.parent) as directory:
        directory.replace(path.name, data, mode=mode, temporary=f"{path.name}.new")
        directory.sync()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: otherwise a power failure can undo a rename."""
    with Directory(path) as directory:
        directory.sync()


def _make(path: Path, mode: int = 0o777) -> None:
    """Create a directory with its parents; sync each parent."""
    if path.is_dir():
        return
    _make(path.parent)
    with contextlib.suppress(FileExistsError):  # made by another process meanwhile, or no directory
        path.mkdir(mode)
    sync_directory(path.parent)
