"""The owner of an index: `pillowd` in the `_meta` of its mapping. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from checkpoints import TailKey
from pillows.transports.common.search.index.in_place import describe_spec
from pillows.transports.common.search.index.spec import IndexSpec

#: The key in `_meta`.
OWNER = "pillowd"

#: Format of its value.
_FORMAT = 1


class Ownership:
    """Tells a tail's indices from others.

    Args:
        key: the tail.
        predecessors: tails whose indices are this one's, too.
    """

    def __init__(self, key: TailKey, predecessors: Collection[TailKey] = ()) -> None:
        self.key = key
        self._owners = {(tail.pillow, tail.source) for tail in (key, *predecessors)}

    def covers(self, owner: Mapping[str, Any]) -> bool:
        """Return whether an index is the tail's.

        Args:
            owner: as `get_owner` returns it.
        """
        known = owner.get("pillow"), owner.get("source")
        return bool(owner.get("format") == _FORMAT and known in self._owners)

    def describe_other(self, owner: Mapping[str, Any]) -> str:
        """Say to whom an index belongs that `covers` does not accept."""
        if not owner:
            return "was not created by pillowd"
        if owner.get("format") != _FORMAT:
            return f"is of format {owner.get('format')}, this pillowd knows format {_FORMAT}"
        return f"belongs to pillow {owner.get('pillow')!r} of {owner.get('source')!r}"

    def make_owner(self, spec: IndexSpec) -> dict[str, Any]:
        """Return the value for an index that is opened with a spec."""
        return {
            "format": _FORMAT,
            "pillow": self.key.pillow,
            "source": self.key.source,
            "digest": spec.digest,
            "spec": describe_spec(spec),
        }


def get_owner(index: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the owner of an index, as the server describes it; empty if that is unknown."""
    owner = index["mappings"].get("_meta", {}).get(OWNER, {})
    return owner if isinstance(owner, Mapping) else {}
