"""How long the version of a record is waited for, before a lower one is believed.

A lagging copy of the database has lower versions, and a partition of the cluster's network may last for
tens of seconds. But a purge of one leaf lowers the version, and so does a backup of the database that was
restored: the record with the higher one stays in the topic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from pillows.clock import Clock
from pillows.feed.couch_feed import CouchFeed
from pillows.models import Change

#: How long to wait: the nodes of a cluster agree within seconds while they are up.
LAG_SECONDS = 60.0
#: In a database without a purge, where only a backup explains a lower version.
UNPURGED_LAG_SECONDS = 300.0
#: For some minutes after a lower version was believed, since many documents may have one then.
_LAG_AGAIN_SECONDS = 6.0
_AGAIN_WITHIN_SECONDS = 180.0
#: How often the database is asked after that, and how far apart, until a lower version is believed.
_LOOKS = 3
_LOOK_APART_SECONDS = 3.0


class Lag:
    """The wait for the versions of one piece of records after another.

    Args:
        couch: the database.
        clock: for ages.
    """

    def __init__(self, couch: CouchFeed, clock: Clock) -> None:
        self._couch = couch
        self._clock = clock
        self._lowered_at: float | None = None
        self.begin()

    def begin(self) -> None:
        """Begin with another piece."""
        self._since: float | None = None
        self._looks: deque[Mapping[str, int]] = deque(maxlen=_LOOKS)
        self._looked_at = 0.0

    def note(self) -> None:
        """Note that the database does not have a version of the piece."""
        if self._since is None:
            self._since = self._clock.monotonic()

    def expect(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Return the changes with the versions to expect: lower ones, if those were found again and again.

        Raises:
            PillowError: as `SourceLookup`.
        """
        now = self._clock.monotonic()
        if self._since is None or not self._is_over(now, now - self._since):
            return changes
        if self._looks and now - self._looked_at < _LOOK_APART_SECONDS:
            return changes
        self._looks.append(self._couch.leaves([each.id for each in changes]))
        self._looked_at = now
        if len(self._looks) < _LOOKS:
            return changes
        expected = [_expect_less(each, self._looks) for each in changes]
        if any(new.leaf_version < old.leaf_version for new, old in zip(expected, changes, strict=True)):
            self._lowered_at = now
        return expected

    def _is_over(self, now: float, waited_seconds: float) -> bool:
        if self._lowered_at is not None and now - self._lowered_at < _AGAIN_WITHIN_SECONDS:
            return waited_seconds > _LAG_AGAIN_SECONDS
        if waited_seconds <= LAG_SECONDS:
            return False
        return waited_seconds > UNPURGED_LAG_SECONDS or self._couch.identify().count_purges_since(None) > 0


def _expect_less(change: Change, looks: Iterable[Mapping[str, int]]) -> Change:
    """Return a change that expects the highest of the versions that were found, if that is lower."""
    found = max(each.get(change.id, change.leaf_version) for each in looks)
    return replace(change, leaf_version=min(change.leaf_version, found))
