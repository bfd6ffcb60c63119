"""How far a tail is behind its source in time, and how fast it goes.

CouchDB's rows carry no time, so the age of a change in the source is not known. Two times are known: when a
change arrived, and when the feed was at the head, so that everything before had arrived.
"""

from __future__ import annotations

from collections import deque

from pillows.clock import Clock
from pillows.models import ChangeBatch

#: A rate is an average over this time: a large batch may take some seconds.
WINDOW_SECONDS = 30.0
#: What happens within this time is counted together.
STEP_SECONDS = 1.0


class Rate:
    """Counts over the last `WINDOW_SECONDS`, or since it was started if that is less.

    Args:
        clock: for all ages.
    """

    __slots__ = ("_began_at", "_clock", "_counts")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: deque[tuple[float, int]] = deque()  # monotonic seconds, and how many from then on
        self.start()

    def start(self) -> None:
        """Forget all times."""
        self._began_at = self._clock.monotonic()
        self._counts.clear()

    def add(self, count: int) -> None:
        """Count something that happened now."""
        now = self._clock.monotonic()
        if self._counts and now - self._counts[-1][0] < STEP_SECONDS:
            now, before = self._counts.pop()
            count += before
        self._counts.append((now, count))
        self._drop_old()

    @property
    def recent(self) -> int:
        """How many happened within the window."""
        self._drop_old()
        return sum(count for _, count in self._counts)

    @property
    def per_second(self) -> float:
        """How many happened per second, on average over the window."""
        age_seconds = self._clock.monotonic() - self._began_at
        return self.recent / min(WINDOW_SECONDS, max(STEP_SECONDS, age_seconds))

    def _drop_old(self) -> None:
        begin = self._clock.monotonic() - WINDOW_SECONDS
        while self._counts and self._counts[0][0] <= begin:
            self._counts.popleft()


class Lag:
    """Follows one tail from run to run.

    Args:
        clock: for all ages.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reached_head = False
        self._overrun = 0  # answers in a row that say so
        self._head_at: float | None = None
        self._rate = Rate(clock)

    def start(self) -> None:
        """Note that a run starts: the position of the head is not known yet."""
        self._reached_head = False
        self._overrun = 0
        self._rate.start()

    def note_batch(self, batch: ChangeBatch, *, is_well: bool, last_byte_at: float | None) -> None:
        """Note a batch of the feed.

        While it follows the head, the feed reports its position at the end of a response, which may be half
        an hour away: until a batch says otherwise, or the feed fails, it stays at the head.

        Args:
            batch: the batch; may be empty.
            is_well: whether the feed reads; False while it waits for a retry.
            last_byte_at: monotonic seconds of the last byte from the source. A silent source may have unsent
                changes.
        """
        if not is_well:
            self._reached_head = False
        elif batch.caught_up:
            self._reached_head = True
        elif batch.pending:
            self._reached_head = False
        if self._at_head:
            self._head_at = self._clock.monotonic() if last_byte_at is None else last_byte_at

    def note_unread(self, unread: int) -> None:
        """Note the source's answer to how many changes were not read yet.

        A tail that follows the head can be too slow for its source. It is if it twice has more to read than
        it acknowledged within `WINDOW_SECONDS`.
        """
        self._overrun = self._overrun + 1 if unread > self._rate.recent else 0

    def note_acknowledged(self, changes: int) -> None:
        """Note acknowledged changes."""
        self._rate.add(changes)

    def seconds(self, oldest_arrived_at: float | None) -> float | None:
        """Return the seconds since every existing change was acknowledged.

        At the head it is the age of the oldest unacknowledged change; 0 if there is none. Elsewhere it is the
        time since the tail was last at the head.

        Args:
            oldest_arrived_at: monotonic seconds when that change arrived; None if all are acknowledged.

        Returns:
            None if the tail was never at the head.
        """
        now = self._clock.monotonic()
        if self._head_at is None:
            return None
        since = now if self._at_head else self._head_at
        return max(0.0, now - min(since, now if oldest_arrived_at is None else oldest_arrived_at))

    @property
    def changes_per_second(self) -> float:
        """Changes per second that the run has acknowledged lately."""
        return self._rate.per_second

    @property
    def _at_head(self) -> bool:
        return self._reached_head and self._overrun < 2
