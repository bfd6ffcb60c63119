"""The index behind an alias: its name, its creation, who owns it, and when the alias moves to it.

The index's name is the alias, a digest of mapping and settings, and the number of the build: a changed
mapping is another index beside the old one, and so is a rebuild with the same mapping. Searches go to the
alias, which moves to the new index when a pass has filled it; to that of another build only by an exchange
(`common.search.switch`).

Writes go to a second alias that only this index has, with `require_alias`: if somebody deletes the
index, the alias is gone with it and writes fail. A write to the index's name would make the server
create an index with guessed types.

`_meta.pillowd` in the mapping holds the tail that owns the index, the epoch it was last written under,
and the number of edits of the checkpoint. It is part of the cluster state, so durable once it is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from checkpoints import TailKey
from pillows.errors import ConfigError, RetryableError
from pillows.transports.common.builds import find_live_key
from pillows.transports.common.search.client import AnswerError, SearchClient
from pillows.transports.common.search.errors import get_cause, translate_errors
from pillows.transports.common.search.misfits import UNINDEXED, UNINDEXED_MAPPING
from pillows.transports.common.search.options import SearchOutput
from pillows.transports.common.search.spec import make_spec

_OWNER = "pillowd"

#: Format of `_meta.pillowd`.
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexState:
    """The state of an index when it was opened.

    Attributes:
        epoch: the highest epoch of a write, here or in the index that the alias points to.
        empty: whether the index holds no document.
        created: whether it was created just now.
    """

    epoch: int | None
    empty: bool
    created: bool


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
        self._key = find_live_key(key)  # all builds belong to the pillow
        self._owners = {(tail.pillow, tail.source) for tail in (self._key, *predecessors)}
        self.output = output
        self.spec = make_spec(output)

    def locate(self) -> None:
        """Use the build that the alias points to, if mapping and settings are its; else the configured one.

        The number of the live build may have been lost with the state directory.

        Raises:
            RetryableError, AccessError: see `translate_errors`.
        """
        if not self.output.build.live:
            return
        with translate_errors():
            found = self._client.call(
                "GET", f"/{quote(self.spec.alias, safe='')}", params={"ignore_unavailable": "true"}
            )
        suffixes = [name.removeprefix(f"{self.spec.prefix}-") for name in found]
        builds = [int(suffix) for suffix in suffixes if suffix.isdigit()]
        self.spec = replace(self.spec, build=max(builds, default=self.spec.build))

    def open(self) -> IndexState:
        """Create the index unless it exists, and return its state.

        A new alias points to it at once; one that points to another index stays until `publish`. No alias
        points to the index of a build that is not live.

        Raises:
            ConfigError: the alias's name or the index is taken by something else.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
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
            epochs = [owner["epoch"] for owner in map(_get_owner, found.values()) if "epoch" in owner]
            return IndexState(
                epoch=max(epochs, default=None), empty=created or self._is_empty(), created=created
            )

    def acquire(self, *, epoch: int, edits: int) -> None:
        """Store epoch and number of edits durably. An epoch is never lowered.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            mapping = self._client.call("GET", self._path("_mapping"))[self.spec.name]["mappings"]
            meta = mapping.get("_meta", {})
            epoch = max(epoch, meta.get(_OWNER, {}).get("epoch", 0))
            owner = {**self._make_owner(), "epoch": epoch, "generation": edits}
            self._change("PUT", self._path("_mapping"), {"_meta": {**meta, _OWNER: owner}})

    def get_epoch(self) -> int:
        """Return the epoch that was last acquired.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            found = self._client.call("GET", self._path("_mapping"))[self.spec.name]
            return int(_get_owner(found).get("epoch", 0))

    def describe_incomparable(self) -> str:
        """Return why the index doesn't keep a document's source as it was sent; "" if it does.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translate_errors`.
        """
        with translate_errors():
            found = self._client.call("GET", self._path(), params={"flat_settings": "true"})[self.spec.name]
        settings, source = found["settings"], found["mappings"].get("_source", {})
        pipelines = {settings.get(f"index.{kind}_pipeline", "_none") for kind in ("default", "final")}
        if self.output.pipeline or pipelines - {"_none"}:
            return "an ingest pipeline changes its documents"
        modes = settings.get("index.mapping.source.mode", ""), settings.get("index.mode", "standard")
        is_derived = settings.get("index.derived_source.enabled") == "true"  # OpenSearch's name for it
        if is_derived or source or modes[0] in ("synthetic", "disabled") or modes[1] != "standard":
            return "its `_source` isn't stored as it was sent"
        return ""

    def publish(self) -> None:
        """Point the alias to this index only, atomically; do nothing for a build that is not live.

        Raises:
            ConfigError, RetryableError, AccessError: see `open`.
        """
        if not self.output.build.live:
            return
        with translate_errors():
            if actions := self.list_publication():
                self._change("POST", "/_aliases", {"actions": actions})

    def list_publication(self) -> Sequence[Mapping[str, Any]]:
        """Return the actions that point the alias to this index only; none if it does."""
        older = [
            name
            for name, index in self._find_indices().items()
            if self.spec.alias in index["aliases"] and name != self.spec.name
        ]
        removed = [{"remove": {"index": name, "alias": self.spec.alias}} for name in older]
        return [*removed, self._make_alias_action()] if older else []

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
            self._check_owner(name, _get_owner(index))
        return found

    def _check_owner(self, name: str, owner: Mapping[str, Any]) -> None:
        if not owner:
            whose = "was not created by pillowd"
        elif owner.get("format") != _FORMAT:
            whose = f"is of format {owner.get('format')}, this pillowd knows format {_FORMAT}"
        elif (owner.get("pillow"), owner.get("source")) not in self._owners:
            whose = f"belongs to pillow {owner.get('pillow')!r} of {owner.get('source')!r}"
        else:
            return
        raise ConfigError(
            f"The index {name!r} {whose}, so {self._key} can't write to {self.spec.alias!r}.",
            remedy="choose another index name, or delete that index if nobody needs it",
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
        """Return the field for what does not fit. The digest is without it: it can be added at any time."""
        return {UNINDEXED: UNINDEXED_MAPPING} if self.output.on_misfit == "unindexed" else {}

    def _make_owner(self) -> dict[str, Any]:
        return {"format": _FORMAT, "pillow": self._key.pillow, "source": self._key.source}

    def _create(self, *, shown: bool) -> None:
        meta = {**self.spec.mapping.get("_meta", {}), _OWNER: self._make_owner()}
        aliases: dict[str, Any] = {self.spec.write_alias: {}}
        if not shown:
            aliases[self.spec.alias] = self.spec.alias_properties
        properties = {**self.spec.mapping.get("properties", {}), **self._make_unindexed()}
        try:
            self._change(
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
                    f"The index {self.spec.name} was created by somebody just now."
                ) from error
            raise

    def _complete(self, index: Mapping[str, Any], *, shown: bool) -> None:
        """Give an existing index the aliases that it lacks, and the field for what does not fit."""
        properties = self._make_unindexed()
        if not properties.keys() <= index["mappings"].get("properties", {}).keys():
            self._change("PUT", self._path("_mapping"), {"properties": properties})
        actions: list[Mapping[str, Any]] = []
        if self.spec.write_alias not in index["aliases"]:
            actions.append({"add": {"index": self.spec.name, "alias": self.spec.write_alias}})
        if not shown:
            actions.append(self._make_alias_action())
        if actions:
            self._change("POST", "/_aliases", {"actions": actions})

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

    def _change(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Change the cluster's state. Unless it is acknowledged it may still be applied, so repeat it."""
        if not self._client.call(method, path, body=body)["acknowledged"]:
            raise RetryableError(
                f"{self._client.PRODUCT} did not acknowledge a change of the cluster's state in time."
            )


def _get_owner(index: Mapping[str, Any]) -> Mapping[str, Any]:
    owner = index["mappings"].get("_meta", {}).get(_OWNER, {})
    return owner if isinstance(owner, Mapping) else {}
