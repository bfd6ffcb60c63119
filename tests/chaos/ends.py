"""How a run of the daemon ends beside a stop, a kill and a failpoint; each tells whether it was felt."""

from __future__ import annotations

import random
import re
import signal
import time

import gevent
import psutil

from tests.acceptance.process import Pillowd

#: What a process says that is given no more memory.
_SHORT = re.compile(r"MemoryError|[Oo]ut of memory|Cannot allocate memory|can't start new thread")


def freeze(daemon: Pillowd, chance: random.Random) -> bool:
    """The process stands still for a while and goes on; whether it did both."""
    daemon.signal(signal.SIGSTOP)
    gevent.sleep(chance.uniform(0.3, 1.2))
    stood = psutil.Process(daemon.child.pid).status() == psutil.STATUS_STOPPED
    daemon.signal(signal.SIGCONT)
    gevent.sleep(0.5 * chance.random())
    return stood and daemon.child.poll() is None


def starve(daemon: Pillowd, chance: random.Random, *, seconds: float) -> bool:
    """The process gets no memory but what it has; whether it missed some: it says so, or has ended.

    Args:
        daemon: a running one.
        chance: draws how long it goes on once it misses some.
        seconds: how long that may take.
    """
    process, log_from = psutil.Process(daemon.child.pid), daemon.log.stat().st_size
    used = process.memory_info().vms
    process.rlimit(psutil.RLIMIT_AS, (used, used))
    until = time.monotonic() + seconds
    while not (missed := _misses(daemon, log_from)) and time.monotonic() < until:
        gevent.sleep(0.05)
    gevent.sleep(chance.random())
    return missed


def _misses(daemon: Pillowd, log_from: int) -> bool:
    with daemon.log.open(errors="replace") as log:
        log.seek(log_from)
        return daemon.child.poll() is not None or says_short(log.read())


def says_short(log: str) -> bool:
    """Whether a log tells of memory that was refused."""
    return _SHORT.search(log) is not None
