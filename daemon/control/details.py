"""All facts about a tail of the running daemon: its status, its past states, its transports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from checkpoints import TailKey
from daemon.supervision.state_history import StateHistory
from daemon.supervision.transport_facts import TransportFacts
from pillows.runtime.status import TailStatus


class Details:
    """Completes the status of a tail.

    Args:
        describe: returns the facts of a status as JSON values.
        history: of all tails' states.
        transports: the facts of their writes.
        names: returns the names of a tail's transports, in configured order.
        list_worst: returns the databases of a pillow that need attention, the worst first.
    """

    def __init__(
        self,
        describe: Callable[[TailStatus], dict[str, Any]],
        history: StateHistory,
        transports: TransportFacts,
        names: Callable[[TailKey], Sequence[str]],
        list_worst: Callable[[TailKey], list[dict[str, Any]]],
    ) -> None:
        self._describe = describe
        self._history = history
        self._transports = transports
        self._names = names
        self._list_worst = list_worst

    def of(self, status: TailStatus) -> dict[str, Any]:
        """Return the facts of a tail: those of its status, `history` and `transports`, for `msgspec`."""
        key = TailKey(status.pillow, status.source)
        return self._describe(status) | {
            "history": self._history.of(key),
            "transports": self._transports.of(key, self._names(key)),
            "worst_databases": [] if status.databases is None else self._list_worst(key),
        }

    def to_json(self, status: TailStatus) -> dict[str, Any]:
        """Return the same as JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self.of(status))
        return values
