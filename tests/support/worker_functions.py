"""Functions that worker processes of tests call."""

from __future__ import annotations

import mmap
import os
import signal
import time
from pathlib import Path
from typing import Any

from pillows.errors import FatalError, PermanentError, PillowError, RetryableError


class Connection:
    """A connection that records the process in which it was opened."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.file = open(os.devnull)  # noqa: SIM115 - closed by `close`

    def close(self) -> None:
        self.file.close()


def connect() -> Connection:
    return Connection()


def refuse_to_connect() -> Connection:
    raise FatalError("The server does not let us in.", remedy="set a password")


def describe(connection: Connection, *task: Any) -> dict[str, Any]:
    """The process of a worker, its open descriptors and its parent."""
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
    return {
        "pid": os.getpid(),
        "connection": connection.pid,
        "sockets": sum(link.startswith("socket:") for link in links),
        "fds": len(links),
        "task": list(task),
    }


def _is_open(fd: str) -> bool:
    return Path(f"/proc/self/fd/{fd}").is_symlink()


def echo(*task: Any) -> list[Any]:
    return list(task)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def share_memory(size_bytes: int) -> int:
    """Take memory that `RLIMIT_DATA` does not count, at less than 1 GB/s."""
    with mmap.mmap(-1, size_bytes) as shared:
        for begin in range(0, size_bytes, 2**20):
            shared[begin : begin + 2**20] = b"x" * 2**20
            time.sleep(0.001)
    return size_bytes


def take_memory(size_bytes: int) -> int:
    kept.append(b"x" * size_bytes)
    return os.getpid()


kept: list[bytes] = []


def die_once(path: str, signal_number: int) -> str:
    """Kills its own process at the first call."""
    marker = Path(path)
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal_number)
    return "survived"


def stop_once(path: str) -> str:
    """Stops its own process at the first call, as SIGSTOP from outside does."""
    return die_once(path, signal.SIGSTOP)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count_range(begin: int | None, end: int | None) -> int:
    """Counts the keys 0 to 99 in a range; the one with key 50 cannot be done while a file is missing."""
    keys = range(begin or 0, 100 if end is None else end)
    gate = os.environ.get("PILLOWD_TEST_GATE", "")
    if gate and 50 in keys and not Path(gate).exists():
        raise PermanentError("key 50 is bad")
    return len(keys)


def fail(kind: str, text: str) -> None:
    raise {
        "retryable": RetryableError,
        "permanent": PermanentError,
        "fatal": FatalError,
        "value": ValueError,
    }[kind](text)


class OddError(PillowError):
    """An error of a user's that forgets its base class."""

    def __init__(self) -> None:
        self.args = ()


def fail_oddly() -> None:
    raise OddError


def return_object() -> object:
    return object()
