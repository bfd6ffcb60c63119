"""How many requests at a time: halved when the server is overrun, recovered one by one."""

from __future__ import annotations

#: Answers in a row before another request at a time is dared.
_RECOVERY = 10


class ConcurrencyLimit:
    """Additive increase, multiplicative decrease (RFC 5681, section 3.1).

    Args:
        most: requests at a time when all is well.

    Attributes:
        width: requests at a time now; 1 at least.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._good = 0
        self.width = most

    def throttled(self) -> None:
        """The server asked us to slow down."""
        self.width = max(1, self.width // 2)
        self._good = 0

    def went_well(self) -> None:
        """The server answered."""
        self._good += 1
        if self._good >= _RECOVERY and self.width < self._most:
            self.width += 1
            self._good = 0
