"""What a kind of store asks of its entries. A POD asks nothing."""

from __future__ import annotations

from typing import Any

from checkpoints.errors import StoreError
from checkpoints.pod.codec import Key
from checkpoints.pod.segment_map import Layout


class Rules:
    """The hooks of a kind of store; each is a no-op here. They are called one at a time.

    Attributes:
        kind: the store's kind, as `.meta` names it.
        checks: whether `check` looks at anything.
    """

    kind = "pod"
    checks = False

    def complete(self, key: Key, value: Any, present: Any) -> Any:
        """What is stored when `value` is assigned to `key`, which holds `present` (None: nothing yet).

        Raises:
            TypeError: it cannot be an entry.
        """
        del key, present
        return value

    def check(self, key: Key, value: Any) -> None:
        """Refuses an entry that was changed in place.

        Raises:
            TypeError: it cannot be an entry any more; the change is undone.
        """

    def changed(self, key: Key, value: Any) -> None:
        """An entry is new, or another."""

    def removed(self, key: Key) -> None:
        """An entry is gone."""

    def read(self, layout: Layout) -> Any:
        """Looks at all entries, as read from the disk, in whatever thread reads it; changes nothing.

        Returns:
            What `begin` is to be told.

        Raises:
            StoreError: they cannot be the entries of this kind of store.
        """

    def begin(self, read: Any) -> None:
        """The entries are now those that `read` looked at."""

    def settings(self) -> dict[str, Any]:
        """What `.meta` keeps beside."""
        return {}

    def opened(self, kind: str | None, settings: dict[str, Any], *, empty: bool) -> bool:
        """Looks at what kind of store is on disk (None: it does not say).

        Returns:
            Whether `.meta` must be written anew.

        Raises:
            StoreError: it is of another kind.
        """
        del settings
        if kind not in (None, self.kind) and not empty:
            raise StoreError(f"this is a store of the kind {kind!r}, not {self.kind!r}")
        return False
