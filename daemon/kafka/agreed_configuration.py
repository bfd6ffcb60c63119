"""Whether this daemon has the configuration of a pillow that its service runs.

Rows that two configurations make of the same documents would depend on who has which partition. So the one
that is noted in `control` counts. A daemon with another one stands by until it has that one, too, or until it
has heard for `QUIET_SECONDS` of no daemon that runs the pillow: then its own counts. It listens for that time
itself, by its own clock: the clocks of two machines may differ, and nothing is heard while brokers are away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pillows.clock import Clock
from pillows.errors import PillowError

#: How long nobody may be heard before another configuration counts: a few times as long as each daemon takes
#: to tell its statuses again.
QUIET_SECONDS = 20.0

#: Key of a pillow's settings -> digest of its value.
Digests = Mapping[str, str]


class ConfigurationRecords(Protocol):
    """The part of `ServiceControl` that is used here."""

    def find_configuration(self, pillow: str) -> Digests | None:
        """Return the configuration that counts; None if none does yet."""

    def set_configuration(self, pillow: str, digests: Digests) -> None:
        """Let a configuration count.

        Raises:
            StoreWriteError: it is not known whether that was written.
        """


class AgreedConfiguration:
    """Compares a pillow's configuration here with the one that counts.

    Args:
        pillow: its name.
        ours: its configuration here.
        records: what counts.
        listen: returns when another daemon was last heard to run the pillow, in monotonic seconds, and None
            if none was; raises `PillowError` if nothing can be heard.
        clock: for the time without a word.
    """

    def __init__(
        self,
        pillow: str,
        ours: Digests,
        records: ConfigurationRecords,
        listen: Callable[[], float | None],
        clock: Clock,
    ) -> None:
        self._pillow = pillow
        self._ours = ours
        self._records = records
        self._listen = listen
        self._clock = clock
        self._quiet_since: float | None = None

    def find_differences(self) -> list[str]:
        """Return the keys whose settings here differ from those that count; none if none count yet."""
        theirs = self._records.find_configuration(self._pillow)
        if theirs is None:
            return []
        keys = sorted(theirs.keys() | self._ours.keys())
        return [key for key in keys if theirs.get(key) != self._ours.get(key)]

    def settle(self) -> list[str]:
        """Return the keys that differ from what other daemons run; if none runs the pillow, let ours count.

        Raises:
            StoreWriteError: it is not known whether ours count now.
        """
        differences = self.find_differences()
        if differences and not self._is_quiet():
            return differences
        if differences or self._records.find_configuration(self._pillow) is None:
            self._records.set_configuration(self._pillow, self._ours)
        return []

    def _is_quiet(self) -> bool:
        """Return whether no other daemon was heard for `QUIET_SECONDS`, while the topic could be read."""
        now = self._clock.monotonic()
        try:
            heard_at = self._listen()
        except PillowError:
            heard_at = now
        since = self._quiet_since = max(self._quiet_since or now, heard_at or 0.0)
        return now - since >= QUIET_SECONDS
