"""A feed that the server filters by more ids than one request may name.

From 1,001 ids on CouchDB scans the whole database instead of looking them up
(`changes_doc_ids_optimization_threshold`), so the ids are asked for in groups, all from one position.
Each answer ends at a position of its own, and none of them can be compared. What may be saved is
found by time, as shared feeds do it (`pillows.feed.shared.shared_feed`): the position that the first group's
answer ended at, once every group was asked for again so much later that each copy has what that
position covers. Until then rows come again; those that were handed on are left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from checkpoints import Seq
from pillows.models import Change

#: As many ids are looked up; for more CouchDB 3.3.2 and later scans (50,000 documents: 0.05 s and 6 s).
GROUP_IDS = 1000


class DocIdGroups:
    """What rounds of requests for many ids have in common.

    Args:
        ids: all of them.
        overlap_seconds: how long a lagging copy may take to have what another one has.

    Attributes:
        groups: the ids of each request.
    """

    def __init__(self, ids: Sequence[str], overlap_seconds: float) -> None:
        self.groups = [ids[begin : begin + GROUP_IDS] for begin in range(0, len(ids), GROUP_IDS)]
        self._overlap_seconds = overlap_seconds
        self._held: deque[tuple[float, Seq]] = deque()
        self._handed: dict[str, tuple[str, ...]] = {}

    def news(self, changes: Iterable[Change]) -> list[Change]:
        """The changes that were not handed on before; they count as handed on from now on."""
        new = [change for change in changes if self._handed.get(change.id) != change.revs]
        self._handed.update((change.id, change.revs) for change in new)
        return new

    def hold(self, at: float, seq: Seq) -> None:
        """Remembers a position: the end of the first group's answer.

        Args:
            at: monotonic seconds when the answer had come.
            seq: the position.
        """
        self._held.append((at, seq))

    def covered(self, began_at: float) -> Seq | None:
        """The newest position whose changes every group has shown; None: there is no newer one yet.

        Args:
            began_at: monotonic seconds when a round began that has ended now.
        """
        covered = None
        while self._held and self._held[0][0] <= began_at - self._overlap_seconds:
            _, covered = self._held.popleft()
        return covered
