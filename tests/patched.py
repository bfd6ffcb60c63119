"""Patches the standard library for gevent before anything else (pytest: ``-p tests.patched``).

The daemon patches in ``daemon/__main__.py``; the tests must run the same code in the same world.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import os
import signal

import pytest
from gevent.hub import Hub
from gevent.util import print_run_info

# Says where every greenlet is, past what pytest captures (`python -m tests` asks a part that hangs).
_stderr = os.dup(2)


def _say_where(*_: object) -> None:
    with open(_stderr, "w", closefd=False) as told:
        print_run_info(file=told)


signal.signal(signal.SIGUSR2, _say_where)

# pytest-timeout fails a test from a signal, in whichever greenlet runs then; the hub would print what
# ends a greenlet, and the test would wait on.
Hub.SYSTEM_ERROR = (*Hub.SYSTEM_ERROR, pytest.fail.Exception)
