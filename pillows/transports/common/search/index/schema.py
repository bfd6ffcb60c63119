"""The index behind an alias: its name, its creation, who owns it, and when the alias moves to it.

An index is kept if its documents can follow a changed configuration (`in_place`). Otherwise a new index is
filled beside it. Searches go to the alias, which moves to the new index when a pass has filled it; to that of
another build only by an exchange (`common.search.switch`).

Writes go to a second alias that only this index has, with `require_alias`: if somebody deletes the
index, the alias is gone with it and writes fail. A write to the index's name would make the server
create an index with guessed types.

`_meta.pillowd` in the mapping holds the tail that owns the index, the epoch it was last written under,
the number of edits of the checkpoint, the digest that the index is named by, the mapping and settings that it
was last opened with, and the settings to put back after a first pass. It is part of the cluster state, so
durable once it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from checkpoints import TailKey
from pillows.errors import ConfigError, RetryableError
from pillows.transports.common.builds import find_live_key
from pillows.transports.common.search.client import AnswerError, SearchClient
from pillows.transports.common.search.errors import get_cause, translate_errors
from pillows.transports.common.search.index.bulk_load import LOADING, keep_settings, split_settings
from pillows.transports.common.search.index.in_place import IndexChange, choose_index
from pillows.transports.common.search.index.ownership import OWNER, Ownership, get_owner
from pillows.transports.common.search.index.spec import IndexSpec, make_spec
from pillows.transports.common.search.misfits import UNINDEXED, UNINDEXED_MAPPING
from pillows.transports.common.search.options import SearchOutput


class IndexState(Struct, frozen=True, kw_only=True):
    """The state of an index when it was opened.

    Attributes:
        epoch: the highest epoch of a write, here or in the index that the alias points to.
        empty: whether the index holds no document.
        created: whether it was created just now.
        changed: the changes made in place, because the configuration has changed; "" without any.
    """

    epoch: int | None
    empty: bool
    created: bool
    changed: str = ""


class OwnedIndex:
    """One output's index.

    Args:
        client: the cluster.
        key: the tail that owns it.
        output: its settings.
        predecessors: tails that may own it, too; `acquire` makes it this tail's.
    """

    def __init__(
        self,
        client: SearchClient,
        key: TailKey,
        output: SearchOutput,
        *,
        predecessors: Collection[TailKey] = (),
    ) -> None:
        self._client = client
        self._ownership = Ownership(find_live_key(key), predecessors)  # all builds belong to the pillow
        self.output = output
        self.spec = make_spec(output)
        self._change: IndexChange | None = None

    def locate(self) -> None:
        """Use the index behind the alias if its documents can follow, else one of the configured build.

        The number of the live build may have been lost with the state directory.

        Raises:
            RetryableError, AccessError: see `translate_errors`.
        """
        self._locate(self.spec, live=self.output.build.live)

    def locate_build(self, number: int) -> None:
        """Use the index of another build.

        Raises:
            RetryableError, AccessError: see `translate_errors`.
        """
        self._locate(replace(make_spec(self.output), build=number), live=False)

    def open(self) -> IndexState:
        """Create the index unless it exists, or apply a changed configuration to it; return its state.

        A new alias points to it at once; one that points to another index stays until `publish`. No alias
        points to the index of a build that is not live.

        Raises:
            ConfigError: the alias's name or the index is taken by something else.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            changed = self._change_in_place()
            found = self._find_indices()
            created = self.spec.name not in found
            self._check_pipeline()
            shown = not self.output.build.live or any(
                self.spec.alias in index["aliases"] for index in found.values()
            )
            if created:
                self._create(shown=shown)
            else:
                self._complete(found[self.spec.name], shown=shown)
            owners = [owner for owner in map(get_owner, found.values()) if self._ownership.covers(owner)]
            return IndexState(
                epoch=max((owner["epoch"] for owner in owners if "epoch" in owner), default=None),
                empty=created or self._is_empty(),
                created=created,
                changed=changed,
            )

    def acquire(self, *, epoch: int, edits: int, loading: bool) -> None:
        """Store the epoch and the number of edits durably. The stored epoch is never lowered.

        Args:
            epoch: the epoch of the writes that follow.
            edits: the checkpoint's number of edits.
            loading: whether a first pass is filling the index. If so, the index has the settings for loading
                until `end_load`.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            index = self.get()
            owner = get_owner(index)
            kept = owner.get("load")
            if loading and kept is None:
                kept = keep_settings(index["settings"])
            self._put_owner(
                index,
                epoch=max(epoch, owner.get("epoch", 0)),
                generation=edits,
                **({} if kept is None else {"load": kept}),
            )
            if kept and loading:
                self._client.change("PUT", self._path("_settings"), {name: LOADING[name] for name in kept})
        if kept and not loading:
            self.end_load()

    def end_load(self) -> None:
        """Put back the settings that the index had before a first pass, and make its documents visible.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            index = self.get()
            kept = get_owner(index).get("load")
            if kept:
                self._client.change("PUT", self._path("_settings"), kept)
                self._client.call("POST", self._path("_refresh"))
                self._put_owner(index, load={})

    def get(self) -> dict[str, Any]:
        """Return the index as the server describes it, its settings dotted.

        Raises:
            AnswerError, RetryableError, AccessError: see `SearchClient.call`.
        """
        found = self._client.call("GET", self._path(), params={"flat_settings": "true"})
        index: dict[str, Any] = found[self.spec.name]
        return index

    def get_epoch(self) -> int:
        """Return the epoch that was last acquired.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            return int(get_owner(self.get()).get("epoch", 0))

    def publish(self) -> None:
        """Point the alias to this index only, atomically; do nothing for a build that is not live.

        Raises:
            ConfigError, RetryableError, AccessError: see `open`.
        """
        if not self.output.build.live:
            return
        with translate_errors():
            if actions := self.list_publication():
                self._client.change("POST", "/_aliases", {"actions": actions})

    def list_publication(self) -> Sequence[Mapping[str, Any]]:
        """Return the actions that point the alias to this index only; none if it does."""
        shown = [name for name, index in self._find_indices().items() if self.spec.alias in index["aliases"]]
        if shown == [self.spec.name]:
            return []
        removed = [
            {"remove": {"index": name, "alias": self.spec.alias}} for name in shown if name != self.spec.name
        ]
        return [*removed, self._make_alias_action()]

    def _locate(self, wanted: IndexSpec, *, live: bool) -> None:
        alias = quote(wanted.alias, safe="")
        places = [alias] * live + [f"{alias}-*-{wanted.build}"]
        with translate_errors():
            found = self._client.call("GET", f"/{','.join(places)}", params={"ignore_unavailable": "true"})
        shown = [name for name, index in found.items() if live and wanted.alias in index["aliases"]]
        owners = {
            name: owner for name, index in found.items() if self._ownership.covers(owner := get_owner(index))
        }
        self.spec, self._change = choose_index(wanted, owners, shown)

    def _change_in_place(self) -> str:
        """Apply a changed configuration to the index, and return what changed.

        If the server refuses a part, another index is used, as for any change that rows can't follow.
        """
        change, self._change = self._change, None
        if change is None or not str(change):
            return ""
        index = self.get()
        now, kept = split_settings(change.settings, get_owner(index).get("load") or {})
        try:
            if change.properties:
                self._client.change("PUT", self._path("_mapping"), {"properties": change.properties})
            if now:
                self._client.change("PUT", self._path("_settings"), now)
        except AnswerError as error:
            wanted = make_spec(self.output)
            if error.status != 400 or self.spec.digest == wanted.digest:
                raise
            self.spec = wanted
            return ""
        self._put_owner(index, **({"load": kept} if kept else {}))
        return str(change)

    def _put_owner(self, index: Mapping[str, Any], **values: Any) -> None:
        """Write `_meta`: the configuration's, ours with these values, and what others wrote there."""
        meta, owner = index["mappings"].get("_meta", {}), get_owner(index)
        outdated = owner.get("spec", {}).get("mapping", {}).get("_meta", {})
        others = {name: each for name, each in meta.items() if name not in outdated}
        ours = {**owner, **self._ownership.make_owner(self.spec), **values}
        wanted = self.spec.mapping.get("_meta", {})
        self._client.change("PUT", self._path("_mapping"), {"_meta": {**others, **wanted, OWNER: ours}})

    def _find_indices(self) -> dict[str, Any]:
        """Return the existing indices behind the alias, and ours; only ours if the build is not live."""
        places = (self.spec.alias, self.spec.name) if self.output.build.live else (self.spec.name,)
        names = ",".join(quote(name, safe="") for name in places)
        found: dict[str, Any] = self._client.call("GET", f"/{names}", params={"ignore_unavailable": "true"})
        if self.spec.alias in found:
            raise ConfigError(
                f"{self.spec.alias!r} is an index, so no alias can have that name.",
                remedy=f"choose another name, or delete the index {self.spec.alias!r}",
            )
        for name, index in found.items():
            if name != self.output.replaces:
                self._check_owner(name, get_owner(index))
        return found

    def _check_owner(self, name: str, owner: Mapping[str, Any]) -> None:
        if self._ownership.covers(owner):
            return
        raise ConfigError(
            f"The index {name!r} {self._ownership.describe_other(owner)}, "
            f"so {self._ownership.key} can't write to {self.spec.alias!r}.",
            remedy=f"choose another index name; or set `replaces: {name}`, and the alias moves to a "
            "new index once that is filled; or delete that index if nobody needs it",
        )

    def _check_pipeline(self) -> None:
        """Refuse a missing pipeline: every document would become a dead letter."""
        name = self.output.pipeline
        if name is None:
            return
        try:
            self._client.call("GET", f"/_ingest/pipeline/{quote(name, safe='')}")
        except AnswerError as error:
            if error.status != 404:
                raise
            raise ConfigError(
                f"There is no ingest pipeline {name!r}.", remedy="create it, or correct `pipeline`"
            ) from error

    def _make_unindexed(self) -> dict[str, Any]:
        """Return the field for misfits. The digest leaves it out, since it can be added at any time."""
        return {UNINDEXED: UNINDEXED_MAPPING} if self.output.on_misfit == "unindexed" else {}

    def _create(self, *, shown: bool) -> None:
        meta = {**self.spec.mapping.get("_meta", {}), OWNER: self._ownership.make_owner(self.spec)}
        aliases: dict[str, Any] = {self.spec.write_alias: {}}
        if not shown:
            aliases[self.spec.alias] = self.spec.alias_properties
        properties = {**self.spec.mapping.get("properties", {}), **self._make_unindexed()}
        try:
            self._client.change(
                "PUT",
                self._path(),
                {
                    "mappings": {**self.spec.mapping, "properties": properties, "_meta": meta},
                    "settings": self.spec.settings,
                    "aliases": aliases,
                },
            )
        except AnswerError as error:
            if get_cause(error.body)[0] == "resource_already_exists_exception":
                raise RetryableError(
                    f"The index {self.spec.name} was just created by another client."
                ) from error
            raise

    def _complete(self, index: Mapping[str, Any], *, shown: bool) -> None:
        """Add missing aliases to an existing index, and the field for misfits."""
        properties = self._make_unindexed()
        if not properties.keys() <= index["mappings"].get("properties", {}).keys():
            self._client.change("PUT", self._path("_mapping"), {"properties": properties})
        actions: list[Mapping[str, Any]] = []
        if self.spec.write_alias not in index["aliases"]:
            actions.append({"add": {"index": self.spec.name, "alias": self.spec.write_alias}})
        if not shown:
            actions.append(self._make_alias_action())
        if actions:
            self._client.change("POST", "/_aliases", {"actions": actions})

    def _make_alias_action(self) -> Mapping[str, Any]:
        return {"add": {"index": self.spec.name, "alias": self.spec.alias, **self.spec.alias_properties}}

    def _is_empty(self) -> bool:
        self._client.call("POST", self._path("_refresh"))
        answer = self._client.call(
            "POST",
            self._path("_search"),
            params={"allow_partial_search_results": "false"},
            body={"size": 0, "terminate_after": 1, "track_total_hits": True},
        )
        return bool(answer["hits"]["total"]["value"] == 0)

    def _path(self, of: str = "") -> str:
        """Return the path of the index, or of something that it has."""
        return f"/{quote(self.spec.name, safe='')}" + (f"/{of}" if of else "")
