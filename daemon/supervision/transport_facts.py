"""What each transport of each tail has done since the daemon started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from checkpoints import TailKey
from pillows.clock import Clock
from pillows.observer import Observer
from pillows.progress.lag import Rate

#: What else is retried (`Observer.retry`). A transport that is named so has no errors here.
NO_TRANSPORT = {"source", "checkpoint"}


class TransportStatus(Struct, frozen=True, kw_only=True):
    """The facts of one transport at one moment. Counts are those since the daemon started.

    Attributes:
        transport: its name.
        documents: settled documents: written, or found there, or dead.
        dead: of these, how many can never be written.
        size_bytes: their size.
        documents_per_second: on average over the last 30 s.
        in_flight: batches that are being written.
        delivered_at: wall-clock seconds when the last batch was settled; None before the first.
        write_seconds: how long that batch took; None before the first.
        error: why the last attempt failed that did; empty if none has failed.
        error_at: wall-clock seconds of that failure; None if none has failed.
    """

    transport: str
    documents: int = 0
    dead: int = 0
    size_bytes: int = 0
    documents_per_second: float = 0.0
    in_flight: int = 0
    delivered_at: float | None = None
    write_seconds: float | None = None
    error: str = ""
    error_at: float | None = None


class TransportFacts(Observer):
    """Keeps the facts of all transports.

    Args:
        clock: for times and rates.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[TailKey, dict[str, _Counts]] = {}

    def in_flight(self, tail: TailKey, *, transport: str, batches: int) -> None:
        """Note the batches that a transport is writing."""
        self._of(tail, transport).in_flight = batches

    def write(
        self, tail: TailKey, *, transport: str, documents: Mapping[str, int], size_bytes: int, seconds: float
    ) -> None:
        """Count a settled batch."""
        counts = self._of(tail, transport)
        total = sum(documents.values())
        counts.documents += total
        counts.dead += documents.get("dead", 0)
        counts.size_bytes += size_bytes
        counts.rate.add(total)
        counts.delivered_at = self._clock.wall()
        counts.write_seconds = seconds

    def retry(self, tail: TailKey, *, where: str, error: str, attempt: int, delay_seconds: float) -> None:  # noqa: ARG002 - an observer's
        """Note a failed attempt, if a transport made it."""
        if where not in NO_TRANSPORT:
            counts = self._of(tail, where)
            counts.error, counts.error_at = error, self._clock.wall()

    def removed(self, tail: TailKey) -> None:
        """Forget a tail."""
        self._counts.pop(tail, None)

    def of(self, tail: TailKey, transports: Sequence[str]) -> list[TransportStatus]:
        """Return the facts of a tail's transports.

        Args:
            tail: the tail.
            transports: their names; one that has written nothing is included.
        """
        counts = self._counts.get(tail, {})
        return [
            counts[name].status(name) if name in counts else TransportStatus(transport=name)
            for name in transports
        ]

    def _of(self, tail: TailKey, transport: str) -> _Counts:
        return self._counts.setdefault(tail, {}).setdefault(transport, _Counts(self._clock))


class _Counts:
    """The counters of one transport; see `TransportStatus`."""

    def __init__(self, clock: Clock) -> None:
        self.documents = self.dead = self.size_bytes = self.in_flight = 0
        self.rate = Rate(clock)
        self.delivered_at: float | None = None
        self.write_seconds: float | None = None
        self.error = ""
        self.error_at: float | None = None

    def status(self, transport: str) -> TransportStatus:
        return TransportStatus(
            transport=transport,
            documents=self.documents,
            dead=self.dead,
            size_bytes=self.size_bytes,
            documents_per_second=self.rate.per_second,
            in_flight=self.in_flight,
            delivered_at=self.delivered_at,
            write_seconds=self.write_seconds,
            error=self.error,
            error_at=self.error_at,
        )
