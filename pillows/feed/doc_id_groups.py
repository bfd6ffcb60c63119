"""Find the position of a feed that the server filters by more ids than one request may name. Pure.

From 1,001 ids on CouchDB scans the whole database instead of looking them up
(`changes_doc_ids_optimization_threshold`), so the ids are requested in groups, all from one position. Each
response ends at its own position, and positions cannot be compared. So the position to save is found by time,
as in shared feeds (`pillows.feed.shared.shared_feed`): the end of the first group's response may be saved
after every group has been requested again `overlap_seconds` later, when each copy has the changes that the
position covers. Until then the server returns some rows again; they are dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from checkpoints import Seq
from pillows.models import Change

#: Most ids that are looked up; for more CouchDB 3.3.2 and later scans (50,000 documents: 0.05 s and 6 s).
GROUP_IDS = 1000


class DocIdGroups:
    """Tracks rounds of requests for many ids.

    Args:
        ids: all of them.
        overlap_seconds: longest lag between two copies of the database.

    Attributes:
        groups: the ids of each request.
    """

    def __init__(self, ids: Sequence[str], overlap_seconds: float) -> None:
        self.groups = [ids[begin : begin + GROUP_IDS] for begin in range(0, len(ids), GROUP_IDS)]
        self._overlap_seconds = overlap_seconds
        self._held: deque[tuple[float, Seq]] = deque()
        self._handed: dict[str, tuple[str, ...]] = {}

    def take_new(self, changes: Iterable[Change]) -> list[Change]:
        """Return the changes that were not handed over before, and remember them."""
        new = [change for change in changes if self._handed.get(change.id) != change.revs]
        self._handed.update((change.id, change.revs) for change in new)
        return new

    def hold(self, at: float, seq: Seq) -> None:
        """Remember a position: the end of the first group's response.

        Args:
            at: monotonic seconds when the response had arrived.
            seq: the position.
        """
        self._held.append((at, seq))

    def find_covered(self, began_at: float) -> Seq | None:
        """Return the newest position up to which every group has returned its changes; None if it is not new.

        Args:
            began_at: monotonic seconds when the round began that has ended now.
        """
        covered = None
        while self._held and self._held[0][0] <= began_at - self._overlap_seconds:
            _, covered = self._held.popleft()
        return covered
