"""Choose the node of a cluster that a request is sent to. Pure but for the clock.

Positions and revisions hold on every node of a cluster, so each request may be sent to another one.
"""

from __future__ import annotations

from collections.abc import Sequence

from pillows.clock import Clock

#: A node that failed, or is in maintenance, is the last choice for this long.
AVOID_SECONDS = 30.0

#: Age from which on a node is asked again whether it is in maintenance (CouchDB docs, "/_up").
CHECK_SECONDS = 15.0


class Nodes:
    """The nodes of one cluster, or a single server.

    Args:
        urls: where they answer, the preferred one first.
        clock: for the age of each node's last answer.
    """

    def __init__(self, urls: Sequence[str], clock: Clock) -> None:
        self._urls = urls
        self._clock = clock
        self._avoid_until = dict.fromkeys(urls, 0.0)
        self._check_at = dict.fromkeys(urls, 0.0)

    def order(self) -> list[str]:
        """Return the nodes in the order in which to try them: healthy ones first."""
        now = self._clock.monotonic()
        return sorted(self._urls, key=lambda url: max(self._avoid_until[url], now))

    def avoid(self, url: str) -> None:
        """Make a node the last choice for a while."""
        self._avoid_until[url] = self._clock.monotonic() + AVOID_SECONDS

    def needs_check(self, url: str) -> bool:
        """Return whether to ask a node for maintenance now; a single server is never asked."""
        now = self._clock.monotonic()
        if len(self._urls) < 2 or now < self._check_at[url]:
            return False
        self._check_at[url] = now + CHECK_SECONDS
        return True
