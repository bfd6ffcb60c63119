"""Whether this daemon has the configuration of a pillow that its service runs.

Rows that two configurations make of the same documents would depend on who has which partition. So the one
that is noted in `control` counts. A daemon with another one stands by until it has that one, too, or until no
daemon runs the pillow any more: then its own counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

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
        is_run_elsewhere: returns whether another daemon has told of late that it runs the pillow.
    """

    def __init__(
        self,
        pillow: str,
        ours: Digests,
        records: ConfigurationRecords,
        is_run_elsewhere: Callable[[], bool],
    ) -> None:
        self._pillow = pillow
        self._ours = ours
        self._records = records
        self._is_run_elsewhere = is_run_elsewhere

    def find_differences(self) -> list[str]:
        """Return the keys of the settings that differ; none if ours count, or nobody's do yet."""
        theirs = self._records.find_configuration(self._pillow)
        if theirs is None:
            return []
        keys = sorted(theirs.keys() | self._ours.keys())
        return [key for key in keys if theirs.get(key) != self._ours.get(key)]

    def settle(self) -> list[str]:
        """Return the keys that differ from what others run; if nobody does, let ours count.

        Raises:
            StoreWriteError: it is not known whether ours count now.
        """
        differences = self.find_differences()
        if differences and self._is_run_elsewhere():
            return differences
        if differences or self._records.find_configuration(self._pillow) is None:
            self._records.set_configuration(self._pillow, self._ours)
        return []
