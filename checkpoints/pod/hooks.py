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
        """Return what is stored when `value` is assigned to `key`, which holds `present` (None: nothing).

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
        """Look at all entries as they were read from the disk, in any thread; change nothing.

        Args:
            kind: of the store on disk, None where it does not say.
            settings: those that `.meta` keeps.
            segment_map: the entries.

        Returns:
            The argument for `begin`.

        Raises:
            StoreError: these are not the entries of this kind of store.
        """

    def begin(self, read: Any) -> bool:
        """Take the entries that `read` looked at. Return whether `.meta` must be written again."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that `.meta` keeps."""
