"""Report the events of single databases under the key of their pillow.

Otherwise ten thousand databases would have ten thousand metric series, and as many log lines a minute. Events
that an operator has to see name the database in their text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from checkpoints import TailKey
from pillows.models import Change, DocumentRows
from pillows.observer import DataObserver, Observer, Rewind
from pillows.progress.lag import Rate


class MemberObserver(Observer):
    """Passes events on under the pillow's key. A database's states, starts and checkpoints are left out.

    Args:
        observer: receives them.
        tail: the pillow's key.
        rate: counts the acknowledged changes.

    Attributes:
        changes: the number of changes that are acknowledged so far.
    """

    def __init__(self, observer: Observer, tail: TailKey, rate: Rate) -> None:
        self.changes = 0
        self._observer = observer
        self._tail = tail
        self._rate = rate

    @property
    def data_observers(self) -> Sequence[DataObserver]:  # type: ignore[override]
        """The data observers of the pillow's observer, called with the pillow's key."""
        return [_MemberDataObserver(each, self._tail) for each in self._observer.data_observers]

    def change(self, tail: TailKey, *, count: int, kept: int, filtered: int) -> None:  # noqa: ARG002 - the pillow's instead
        """Pass the event on."""
        self._observer.change(self._tail, count=count, kept=kept, filtered=filtered)

    def stage(self, tail: TailKey, *, stage: str, seconds: float) -> None:  # noqa: ARG002 - as above
        """Pass the event on."""
        self._observer.stage(self._tail, stage=stage, seconds=seconds)

    def write(
        self,
        tail: TailKey,  # noqa: ARG002 - as above
        *,
        transport: str,
        documents: Mapping[str, int],
        size_bytes: int,
        seconds: float,
    ) -> None:
        """Pass the event on."""
        self._observer.write(
            self._tail, transport=transport, documents=documents, size_bytes=size_bytes, seconds=seconds
        )

    def batch(self, tail: TailKey, *, documents: int, refused: int, dead: int, seconds: float) -> None:  # noqa: ARG002 - as above
        """Pass the event on."""
        self._observer.batch(self._tail, documents=documents, refused=refused, dead=dead, seconds=seconds)

    def acknowledged(self, tail: TailKey, *, changes: int, seconds: float) -> None:  # noqa: ARG002 - as above
        """Count the changes, and pass the event on."""
        self.changes += changes
        self._rate.add(changes)
        self._observer.acknowledged(self._tail, changes=changes, seconds=seconds)

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:
        """Pass the event on, with the database."""
        self._observer.retry(
            self._tail,
            where=where,
            error=f"{tail.database}: {error}",
            attempt=attempt,
            delay_seconds=delay_seconds,
        )

    def rewind(self, tail: TailKey, *, kind: Rewind, reason: str) -> None:
        """Pass the event on, with the database."""
        self._observer.rewind(self._tail, kind=kind, reason=f"{tail.database}: {reason}")

    def dead_letter(self, tail: TailKey, *, transport: str, id: str, stage: str, error: str) -> None:
        """Pass the event on, with the database."""
        self._observer.dead_letter(
            self._tail, transport=transport, id=f"{tail.database}:{id}", stage=stage, error=error
        )

    def warning(self, tail: TailKey, *, event: str, details: Mapping[str, object]) -> None:
        """Pass the event on, with the database."""
        self._observer.warning(self._tail, event=event, details={"database": tail.database, **details})


class _MemberDataObserver(DataObserver):
    """Shows the data of one database under the pillow's key."""

    def __init__(self, observer: DataObserver, tail: TailKey) -> None:
        self._observer = observer
        self._tail = tail

    def arrived(self, tail: TailKey, *, changes: Sequence[Change]) -> None:  # noqa: ARG002 - the pillow's instead
        self._observer.arrived(self._tail, changes=changes)

    def transformed(self, tail: TailKey, *, documents: Sequence[DocumentRows]) -> None:  # noqa: ARG002 - as above
        self._observer.transformed(self._tail, documents=documents)
