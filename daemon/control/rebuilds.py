"""Control calls that begin, steer and show rebuilds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoints import TailKey
from daemon.control.snapshot import Snapshots
from daemon.control.tails import Tails
from daemon.errors import ConflictError, NotFoundError
from daemon.rebuilds.record import Rebuild, to_json
from pillows.transports.common.builds import find_live_key

if TYPE_CHECKING:  # commands on the files need none
    from daemon.rebuilds.rebuilder import Rebuilder


class RebuildCalls:
    """Begins, steers and shows rebuilds.

    Args:
        tails: finds tails by name.
        snapshots: of their states.
        rebuilder: of the running daemon; None without one, or if its configuration is not in a file.
    """

    def __init__(self, tails: Tails, snapshots: Snapshots, rebuilder: Rebuilder | None) -> None:
        self._rebuilder = rebuilder
        self._tails = tails
        self._snapshots = snapshots

    def start(self, tail: TailKey, **options: Any) -> dict[str, Any]:
        """Begin a rebuild; see `Rebuilder.start`."""
        return self._show(tail, self._need(tail).start(tail, **options))

    def switch(self, tail: TailKey) -> dict[str, Any]:
        """Switch to the other build; see `Rebuilder.switch`."""
        return self._show(tail, self._need(tail).switch(tail))

    def roll_back(self, tail: TailKey) -> dict[str, Any]:
        """Switch back to the former build; see `Rebuilder.roll_back`."""
        return self._show(tail, self._need(tail).roll_back(tail))

    def drop(self, tail: TailKey, *, coming: bool) -> dict[str, Any]:
        """Remove the other build; see `Rebuilder.drop`."""
        return self._show(tail, self._need(tail).drop(tail, coming=coming))

    def get(self, tail: TailKey) -> dict[str, Any]:
        """Return the record of a pillow, and the progress of the other build.

        Raises:
            NotFoundError: it was never rebuilt.
        """
        record = self._tails.state.rebuilds.get(tail)
        if record is None:
            raise NotFoundError(f"{tail} was never rebuilt", remedy=f"`pillowd rebuild {tail}` does that")
        return self._show(tail, record)

    def _show(self, tail: TailKey, record: Rebuild) -> dict[str, Any]:
        self._snapshots.forget()
        other = record.name_other(tail)
        is_fed = record.has_other and other in self._tails.list_configured()
        status = self._tails.status(other) if is_fed else None
        return to_json(record, tail) | {
            "fed": is_fed,
            "other_state": None if status is None else str(status.state),
            "pending": None if status is None else status.pending,
            "changes_per_second": None if status is None else status.changes_per_second,
            "seconds_to_go": None if status is None else status.seconds_to_go,
        }

    def _need(self, tail: TailKey) -> Rebuilder:
        if find_live_key(tail) != tail:
            raise ConflictError(f"{tail} is a build of {find_live_key(tail)}", remedy="name that pillow")
        if self._rebuilder is None:
            raise ConflictError("no daemon with a configuration file is running", remedy="`pillowd run`")
        return self._rebuilder
