"""Patches the standard library for gevent before anything else (pytest: ``-p tests.patched``).

The daemon patches in ``daemon/__main__.py``; the tests must run the same code in the same world.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()
