"""List the indices of one alias that a tail has created, and remove those that nothing uses any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from checkpoints import TailKey
from pillows.errors import ConfigError
from pillows.transports.common.builds import find_live_key
from pillows.transports.common.search.client import SearchClient
from pillows.transports.common.search.errors import translate_errors
from pillows.transports.common.search.index.ownership import OWNER, Ownership, get_owner
from pillows.transports.common.search.index.spec import IndexSpec


class IndexUse(StrEnum):
    """The use of an index."""

    SEARCHED = "searched"  # the alias points to it
    CONFIGURED = "configured"  # the configuration names it: a pass fills it, or will
    WRITTEN = "written"  # the last one that a pillowd wrote to; its configuration may not be ours
    BUILD = "build"  # of another build, which `pillowd rebuild` switches to, keeps or drops
    OLD = "old"


class IndexInfo(Struct, frozen=True, kw_only=True):
    """One index.

    Attributes:
        name: of the index.
        use: its use; only an old index may be removed.
        documents: in it, tombstones included.
        size_bytes: on all nodes.
        created_at: wall-clock seconds.
        loading: whether it has the settings of a first pass: no refreshes, no copies.
    """

    name: str
    use: IndexUse
    documents: int
    size_bytes: int
    created_at: float
    loading: bool


class OldIndices:
    """The indices that one output of a tail has left.

    Args:
        client: the cluster.
        key: the tail.
        spec: the index in use.
    """

    def __init__(self, client: SearchClient, key: TailKey, spec: IndexSpec) -> None:
        self._client = client
        self._ownership = Ownership(find_live_key(key))
        self._spec = spec

    def list(self) -> Sequence[IndexInfo]:
        """Return all indices of the tail under the alias, oldest first.

        Raises:
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            found = self._client.call("GET", self._pattern, params={"flat_settings": "true"})
            stats = self._client.call("GET", f"{self._pattern}/_stats/docs,store")["indices"]
        ours = {name: index for name, index in found.items() if self._is_ours(name, index)}
        return sorted(
            (_describe(name, index, self._find_use(name, ours), stats) for name, index in ours.items()),
            key=lambda each: (each.created_at, each.name),
        )

    def remove(self, name: str) -> None:
        """Delete an old index.

        Raises:
            ConfigError: it is in use, or not the tail's.
            RetryableError, AccessError: see `translate_errors`.
        """
        use = {each.name: each.use for each in self.list()}
        if name not in use:
            raise ConfigError(f"{name} is not an index of {self._ownership.key}.")
        if use[name] is not IndexUse.OLD:
            raise ConfigError(f"The index {name} is in use ({use[name]}), so it is not removed.")
        with translate_errors():
            self._client.call("DELETE", f"/{quote(name, safe='')}")

    def end_loads(self) -> Sequence[str]:
        """Put back the settings of indices whose first pass was given up, and return their names.

        Another pass fills the index in use by now. Other builds are left to their own tails.

        Raises:
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            found = self._client.call("GET", self._pattern, params={"flat_settings": "true"})
            given_up = [
                name
                for name, index in found.items()
                if self._is_ours(name, index)
                and get_owner(index).get("load")
                and name != self._spec.name
                and self._find_build(name, index) == self._spec.build
            ]
            for name in given_up:
                meta, owner = found[name]["mappings"]["_meta"], get_owner(found[name])
                path = f"/{quote(name, safe='')}"
                self._client.change("PUT", f"{path}/_settings", owner["load"])
                ended = {**meta, OWNER: {**owner, "load": {}}}
                self._client.change("PUT", f"{path}/_mapping", {"_meta": ended})
        return given_up

    @property
    def _pattern(self) -> str:
        return f"/{quote(self._spec.alias, safe='')}-*"

    def _is_ours(self, name: str, index: Mapping[str, Any]) -> bool:
        return self._ownership.covers(get_owner(index)) and self._find_build(name, index) > 0

    def _find_build(self, name: str, index: Mapping[str, Any]) -> int:
        """Return the number of the build in an index's name; 0 if pillowd does not name indices so."""
        return replace(self._spec, digest=get_owner(index).get("digest", "")).get_build(name)

    def _find_use(self, name: str, ours: Mapping[str, Any]) -> IndexUse:
        """Return the use of an index.

        A daemon may run with an older or newer configuration than ours, and fill an index that the alias does
        not point to yet: it has the highest epoch of its build.
        """
        if self._spec.alias in ours[name]["aliases"]:
            return IndexUse.SEARCHED
        if name == self._spec.name:
            return IndexUse.CONFIGURED
        if self._find_build(name, ours[name]) != self._spec.build:
            return IndexUse.BUILD
        newest = max(
            _get_epoch(index)
            for each, index in ours.items()
            if self._find_build(each, index) == self._spec.build
        )
        return IndexUse.WRITTEN if _get_epoch(ours[name]) == newest else IndexUse.OLD


def _get_epoch(index: Mapping[str, Any]) -> int:
    return int(get_owner(index).get("epoch", 0))


def _describe(name: str, index: Mapping[str, Any], use: IndexUse, stats: Mapping[str, Any]) -> IndexInfo:
    counted = stats.get(name, {"primaries": {}, "total": {}})
    return IndexInfo(
        name=name,
        use=use,
        documents=counted["primaries"].get("docs", {}).get("count", 0),
        size_bytes=counted["total"].get("store", {}).get("size_in_bytes", 0),
        created_at=int(index["settings"]["index.creation_date"]) / 1000,
        loading=bool(get_owner(index).get("load")),
    )
