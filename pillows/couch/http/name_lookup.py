"""Look up names in separate threads, so that dead name servers delay only their own requests.

gevent's own resolver shares ten threads with files, SQLite and compression, and a name whose servers do not
answer takes one of them for up to half a minute.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from typing import Any

import gevent
from gevent.resolver.thread import Resolver
from gevent.threadpool import ThreadPool

#: Threads that look names up; each name needs one at most.
MAX_THREADS = 100

#: Looks a name up; blocks the thread.
Lookup = Callable[..., Any]


class NameLookup(Resolver):
    """gevent's resolver with its own threads, one lookup at a time for each name.

    Args:
        hub: the hub that waits; the current one by default.
        lookup: the system's `getaddrinfo`; replaced by tests.
    """

    def __init__(self, hub: Any = None, lookup: Lookup = _socket.getaddrinfo) -> None:
        super().__init__(hub)
        self.pool = ThreadPool(MAX_THREADS, hub=hub or gevent.get_hub())
        self._lookup = lookup
        self._running: dict[tuple[Any, ...], Any] = {}

    def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        """Return the addresses of a name; wait for a lookup of it that is under way.

        Raises:
            OSError: it has none, or its servers do not answer.
        """
        key = (*args, *sorted(kwargs.items()))
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = self.pool.spawn(self._lookup, *args, **kwargs)
            running.rawlink(lambda _: self._running.pop(key, None))
        return running.get()


def install() -> None:
    """Let all of this thread's greenlets look names up in this way, once."""
    hub = gevent.get_hub()
    if not isinstance(hub.resolver, NameLookup):
        hub.resolver = NameLookup(hub)  # type: ignore[assignment] # its stubs know no thread resolver
