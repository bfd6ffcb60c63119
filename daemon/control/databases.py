"""Control calls for the single databases of a pillow that reads several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from typing import Any

from checkpoints import TailKey
from daemon.control.paging import page
from daemon.control.tails import Tails
from daemon.errors import NotFoundError
from daemon.tail_lookup import is_pattern
from pillows.clock import Clock

#: The states of databases that need attention or wait, the worst first.
WORST = ("failed", "backing-off", "queued", "active", "paused", "deleted", "parked")

#: Most databases that the web page shows of a pillow.
MANY = 20


class DatabaseCalls:
    """Lists the databases of pillows.

    Args:
        tails: finds tails by name.
        clock: for ages.
    """

    def __init__(self, tails: Tails, *, clock: Clock) -> None:
        self._tails = tails
        self._clock = clock

    def list_page(
        self, tail: TailKey, *, state: str | None, worst: bool, limit: int, after: str
    ) -> dict[str, Any]:
        """Return the number of a pillow's databases in each state, and one page of databases.

        Args:
            tail: the pillow's.
            state: only databases in this state.
            worst: whether databases that need attention come first; then there is only one page.
            limit: most databases of the page.
            after: `next` of the page before.

        Raises:
            NotFoundError: the pillow reads one database.
        """
        if not is_pattern(tail):
            raise NotFoundError(
                f"{tail} reads one database", remedy=f"`pillowd status` shows {tail.pillow} itself"
            )
        found = list(self._list(tail))
        counts = Counter(each["state"] for each in found)
        chosen = [each for each in found if state in (None, each["state"])]
        if worst:
            chosen.sort(key=_badness)
        else:
            chosen.sort(key=lambda each: each["database"])
            chosen = [each for each in chosen if each["database"] > after]
        shown = page(chosen[:limit])
        is_last = worst or len(shown) == len(chosen)
        return {
            "key": str(tail),
            "counts": {name: counts[name] for name in WORST if counts[name]},
            "databases": shown,
            "next": None if is_last else shown[-1]["database"],
        }

    def list_worst(self, tail: TailKey) -> list[dict[str, Any]]:
        """Return the databases of a pillow that are not parked, the worst first, at most `MANY`."""
        return nsmallest(MANY, self._list(tail, without=("parked", "deleted")), key=_badness)

    def _list(self, tail: TailKey, without: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        running = self._tails.find_databases(tail)
        if running is None:  # from the files
            for member in self._tails.list_members(tail):
                is_paused = member in self._tails.state.pauses
                yield _to_json(member, "paused" if is_paused else "parked")
            return
        connection, now = tail.source.partition("/")[0], self._clock.monotonic()
        for name, database in running.list_databases():
            if database.state in without:
                continue
            dirty_at = database.dirty_since
            yield _to_json(
                TailKey(tail.pillow, f"{connection}/{name}"),
                str(database.state),
                reason=database.reason,
                failures=database.failures,
                dirty_seconds=None if dirty_at is None else now - dirty_at,
            )


def _badness(each: dict[str, Any]) -> tuple[int, float]:
    return WORST.index(each["state"]), -(each["dirty_seconds"] or 0.0)


def _to_json(
    member: TailKey, state: str, *, reason: str = "", failures: int = 0, dirty_seconds: float | None = None
) -> dict[str, Any]:
    return {
        "database": member.database,
        "key": str(member),
        "state": state,
        "reason": reason,
        "failures": failures,
        "dirty_seconds": dirty_seconds,
    }
