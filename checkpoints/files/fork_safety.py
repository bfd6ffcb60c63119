"""Close a process's descriptors in its forked children.

A child inherits every descriptor. Held there, a lock would outlive its holder, and a connection or a
listening socket would look alive after its server was killed.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Abandoned(Protocol):
    """An object whose descriptors a forked child must close."""

    def abandon(self) -> None:
        """Close the descriptors, in the child.

        It must write nothing and take no lock: a thread of the parent may have held it.
        """


class _ForkRegistry:
    def __init__(self) -> None:
        self._watched: weakref.WeakSet[Abandoned] = weakref.WeakSet()
        self._registered = False

    def register(self, thing: Abandoned) -> None:
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._abandon)
        self._watched.add(thing)

    def _abandon(self) -> None:
        things, self._watched = list(self._watched), weakref.WeakSet()
        for thing in things:
            thing.abandon()


register_for_fork = _ForkRegistry().register
