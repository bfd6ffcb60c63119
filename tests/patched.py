"""Patches the standard library for gevent before anything else (pytest: ``-p tests.patched``).

The daemon patches in ``daemon/__main__.py``; the tests must run the same code in the same world.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import pytest  # noqa: E402 - whatever is imported is imported patched
from gevent.hub import Hub  # noqa: E402

# pytest-timeout fails a test from a signal, in whichever greenlet runs then; the hub would print what
# ends a greenlet, and the test would wait on.
Hub.SYSTEM_ERROR = (*Hub.SYSTEM_ERROR, pytest.fail.Exception)
