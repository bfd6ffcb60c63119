"""A disk that refuses writes, dies in the middle of them, or takes its time.

`FailingDisk` sits below the stores, at `Directory`; `FailingCalls` at the system calls of `os`.
The disk that keeps no more than POSIX demands is the crash model's own (`unit/checkpoints`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from gevent import monkey

from checkpoints.files.directory import Directory


class Crash(Exception):
    """The process is dead: none of its later system calls takes effect."""


class FailingDisk:
    """Refuse some writes of every store.

    Args:
        patch: undoes it at the end of the test.

    Attributes:
        refusals: how many of the next writes are refused with "no space left"; it counts down.
        fsync_seconds: how much longer each fsync takes, in its own thread.
        before_write: called with a file's name and data before each write.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.refusals = 0
        self.fsync_seconds = 0.0
        self.before_write: Callable[[str, bytes], object] = lambda _name, _data: None
        fsync = Directory._fsync
        sleep = monkey.get_original("time", "sleep")  # the patched one would let other greenlets run

        def or_refuse(write: Callable[..., Any]) -> Callable[..., Any]:
            def write_or_refuse(directory: Directory, name: str, data: Any, **options: Any) -> Any:
                if self.refusals:
                    self.refusals -= 1
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.before_write(name, data)
                return write(directory, name, data, **options)

            return write_or_refuse

        def slow_fsync(directory: Directory, fd: int) -> None:
            if self.fsync_seconds:
                sleep(self.fsync_seconds)
            fsync(directory, fd)

        for write in (Directory.replace, Directory.append):
            patch.setattr(Directory, write.__name__, or_refuse(write))
        patch.setattr(Directory, "_fsync", slow_fsync)


class FailingCalls:
    """Count the system calls of a process, and let one of them, by its number, fail.

    fsync does nothing here: what reaches the disk is not the question, only what the process did.

    Args:
        fails_at: this call is refused with EIO; 0 for none.
        crashes_at: this call is the process's last; 0 for none.
        done: the system does its part before the call fails.

    Attributes:
        calls: how many calls there were.
    """

    NAMES = ("pwrite", "fsync", "ftruncate", "rename")

    def __init__(self, *, fails_at: int = 0, crashes_at: int = 0, done: bool = False) -> None:
        self.calls = 0
        self.fails_at = fails_at
        self.crashes_at = crashes_at
        self.done = done

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Put this in the place of the functions of `os`."""
        with pytest.MonkeyPatch.context() as patch:
            for name in self.NAMES:
                patch.setattr(os, name, self._wrap(name))
            yield

    def _wrap(self, name: str) -> Callable[..., Any]:
        real: Callable[..., Any] = (lambda _: None) if name == "fsync" else getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.crashes_at and self.calls > self.crashes_at:
                raise Crash
            fails = self.calls in (self.fails_at, self.crashes_at)
            result = real(*arguments, **options) if not fails or self.done else None
            if self.calls == self.crashes_at:
                raise Crash
            if self.calls == self.fails_at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return result

        return call
