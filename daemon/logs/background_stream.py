"""A text stream that a background thread writes, so that nothing waits for its reader."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, BinaryIO, TextIO, cast

import gevent
from gevent import monkey

#: Characters that may wait to be written. A thousand lines of a stack trace each need a tenth of it.
MAX_WAITING_CHARS = 8 * 2**20
#: How long the end waits for a reader.
DRAIN_SECONDS = 0.5
#: How often `drain` looks whether everything is written.
_DRAIN_STEP_SECONDS = 0.01

# Those of the standard library: gevent's would need the hub, which must not wait for a reader.
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
# Reentrant: the garbage collector may run a destructor that logs while the lock is held.
_RLock: Callable[[], Any] = monkey.get_original("_thread", "RLock")


class BackgroundStream(io.TextIOBase):
    """Takes text at once, and writes it in a native thread.

    A pipe that nobody reads blocks only that thread; a full disk or a closed pipe raises nothing.
    Text that does not fit into the buffer, or cannot be written, is dropped. The number of lost lines
    is written before the next text.

    Args:
        stream: the stream to write to. Where it has a file descriptor that is written to directly: a
            thread that is blocked inside a buffered stream would abort the interpreter at its exit.
        max_waiting_chars: the size of the buffer.
    """

    def __init__(self, stream: TextIO, *, max_waiting_chars: int = MAX_WAITING_CHARS) -> None:
        self._stream = stream
        self._write = _find_write(stream)
        self._max_waiting_chars = max_waiting_chars
        self._lock = _RLock()
        self._waiting: deque[tuple[int, str]] = deque()  # lines lost before it, text
        self._waiting_chars = 0
        self._lost = 0
        self._has_thread = False

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """The stream's encoding."""
        return self._stream.encoding

    @property
    def buffer(self) -> BinaryIO:
        """The stream's buffer, for the transport `stdout`, which must know that its bytes were accepted."""
        return self._stream.buffer

    def write(self, text: str) -> int:
        """Take text; never waits, never raises."""
        with self._lock:
            if self.closed:
                return len(text)
            if self._waiting_chars and self._waiting_chars + len(text) > self._max_waiting_chars:
                self._lost += _count_lines(text)
                return len(text)
            self._waiting.append((self._lost, text))
            self._waiting_chars += len(text)
            self._lost = 0
            if not self._has_thread:
                self._start()
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes at once, and `drain` waits for it."""

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """Return the stream's file descriptor, for child processes."""
        return self._stream.fileno()

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, `seconds` at most. Return whether it is."""
        for _ in range(int(seconds / _DRAIN_STEP_SECONDS)):
            if not self._waiting_chars:
                return True
            gevent.sleep(_DRAIN_STEP_SECONDS)
        return not self._waiting_chars

    def close(self) -> None:
        """Write the remaining text, or drop it if it is not read. The stream itself stays open."""
        if not self.closed:
            self.drain(DRAIN_SECONDS)
        with self._lock:
            self._waiting.clear()
        super().close()

    def _start(self) -> None:
        try:
            _start_thread(self._write_waiting, ())
            self._has_thread = True
        except RuntimeError:  # the limit of threads is reached: the next text tries again
            pass

    def _write_waiting(self) -> None:
        """Write until nothing waits. A thread that is idle ends, so that none is left at the exit."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._waiting_chars = 0
                    self._has_thread = False
                    return
                lost, text = self._waiting.popleft()
            note = f"({lost} log lines lost: they could not be written)\n" if lost else ""
            try:
                self._write(note + text)
                lost = 0
            except (OSError, ValueError):  # ValueError: the stream was closed
                lost += _count_lines(text)
            with self._lock:
                self._waiting_chars -= len(text)
                self._add_lost(lost)

    def _add_lost(self, lost: int) -> None:
        """Count lost lines with the next text, or with the lines lost since."""
        if self._waiting:
            before, text = self._waiting[0]
            self._waiting[0] = (before + lost, text)
        else:
            self._lost += lost


@contextmanager
def redirect_standard_streams() -> Iterator[BackgroundStream]:
    """Write `sys.stdout` and `sys.stderr` in the background until the end of the `with`.

    Output of plugins must not wait for a reader either.

    Yields:
        the standard error stream.
    """
    output, error = BackgroundStream(sys.stdout), BackgroundStream(sys.stderr)
    try:
        with redirect_stdout(cast("TextIO", output)), redirect_stderr(cast("TextIO", error)):
            yield error
    finally:
        for stream in (output, error):
            stream.close()


def _count_lines(text: str) -> int:
    return max(1, text.count("\n"))


def _find_write(stream: TextIO) -> Callable[[str], object]:
    """Return a function that writes text to a stream, directly to its file descriptor if it has one."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # in memory
        return stream.write
    encoding = stream.encoding or "utf-8"

    def write(text: str) -> None:
        data = memoryview(text.encode(encoding, errors="backslashreplace"))
        while data:
            data = data[os.write(descriptor, data) :]

    return write
