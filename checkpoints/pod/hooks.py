"""The hooks of a store that keeps an index of its entries; a POD has none."""

from __future__ import annotations

from typing import Any, Protocol

from checkpoints.pod.codec import Key
from checkpoints.pod.segment_map import SegmentMap


class EntryHooks(Protocol):
    """Checks and follows the entries of a store. The hooks are called one at a time.

    Attributes:
        kind: the store's kind, as `.meta` names it.
    """

    kind: str

    def complete(self, key: Key, value: Any, present: Any) -> Any:
        """Return the value to store when `value` is assigned to `key`.

        Args:
            key: the key.
            value: the assigned value.
            present: the key's present value; None if it has none.

        Raises:
            TypeError: it cannot be an entry.
        """

    def check(self, key: Key, value: Any) -> None:
        """Refuse an entry that was changed in place.

        Raises:
            TypeError: it is no longer an entry; the change is undone.
        """

    def changed(self, key: Key, value: Any) -> None:
        """Follow an entry that is new or changed."""

    def removed(self, key: Key) -> None:
        """Follow an entry that was removed."""

    def read(self, kind: str | None, settings: dict[str, Any], segment_map: SegmentMap) -> Any:
        """Examine all entries that were read from disk. Runs in any thread and changes nothing.

        Args:
            kind: the kind in `.meta`; None if it has none.
            settings: the settings in `.meta`.
            segment_map: the entries.

        Returns:
            The argument for `begin`.

        Raises:
            StoreError: these are not the entries of this kind of store.
        """

    def begin(self, read: Any) -> bool:
        """Start with the result of `read`. Return whether `.meta` must be written again."""

    def settings(self) -> dict[str, Any]:
        """Return the settings to keep in `.meta`."""
