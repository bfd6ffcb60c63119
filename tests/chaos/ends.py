"""Freeze the daemon, or deny it memory; each function returns whether that took effect."""

from __future__ import annotations

import random
import re
import signal
import time

import gevent
import psutil

from tests.acceptance.process import Pillowd

#: Log messages of a process that gets no more memory.
_SHORT = re.compile(r"MemoryError|[Oo]ut of memory|Cannot allocate memory|can't start new thread")


def freeze(daemon: Pillowd, chance: random.Random) -> bool:
    """Freeze the process for a while; return whether it froze, and runs again."""
    daemon.signal(signal.SIGSTOP)
    gevent.sleep(chance.uniform(0.3, 1.2))
    stood = psutil.Process(daemon.child.pid).status() == psutil.STATUS_STOPPED
    daemon.signal(signal.SIGCONT)
    gevent.sleep(0.5 * chance.random())
    return stood and daemon.child.poll() is None


def starve(daemon: Pillowd, chance: random.Random, *, seconds: float) -> bool:
    """Deny the process more memory; return whether it ran short: it logged that, or has ended.

    Args:
        daemon: a running daemon.
        chance: draws how long it runs on after that.
        seconds: longest wait for it to run short.
    """
    process, log_from = psutil.Process(daemon.child.pid), daemon.log.stat().st_size
    used = process.memory_info().vms
    process.rlimit(psutil.RLIMIT_AS, (used, used))
    until = time.monotonic() + seconds
    while not (missed := _has_run_short(daemon, log_from)) and time.monotonic() < until:
        gevent.sleep(0.05)
    gevent.sleep(chance.random())
    return missed


def _has_run_short(daemon: Pillowd, log_from: int) -> bool:
    with daemon.log.open(errors="replace") as log:
        log.seek(log_from)
        return daemon.child.poll() is not None or shows_memory_error(log.read())


def shows_memory_error(log: str) -> bool:
    """Return whether a log shows that memory was denied."""
    return _SHORT.search(log) is not None
