"""The index behind an alias: its name, its creation, who owns it, and when the alias moves to it.

The index's name ends with a digest of mapping and settings, so a changed mapping is another index
beside the old one. Searches go to the alias, which moves to the new index when a pass has filled it.

Writes go to a second alias that only this index has, with `require_alias`: should somebody delete
the index, the alias is gone with it and writes fail, where a write to the index's name would make
Elasticsearch create an index with guessed types.

`_meta.pillowd` in the mapping says which tail owns the index, under which epoch it was last written,
and how often an operator had edited the checkpoint. It is part of the cluster state, so durable once
it is acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from elasticsearch import BadRequestError, Elasticsearch, NotFoundError

from checkpoints import TailKey
from pillows.errors import ConfigError, RetryableError
from pillows.transports.elasticsearch.bulk import DELETED_AT
from pillows.transports.elasticsearch.connection import translated
from pillows.transports.elasticsearch.options import ElasticsearchOutput, dotted

_OWNER = "pillowd"

#: Of what stands in `_meta.pillowd`.
_FORMAT = 1

#: How long Elasticsearch remembers the version of a deleted document; by itself 60 s.
_GC_DELETES = "1h"

#: Finds everything but tombstones.
VISIBLE = {"bool": {"must_not": {"exists": {"field": DELETED_AT}}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The index that an output needs.

    Attributes:
        alias: what is searched.
        name: of the index.
        write_alias: what is written to.
        mapping: of the index.
        settings: of the index, dotted, each beginning with `index.`.
        shown: properties of the alias: with tombstones, a filter that hides them.
        digest: of all this.
    """

    alias: str
    name: str
    write_alias: str
    mapping: Mapping[str, Any]
    settings: Mapping[str, Any]
    shown: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStanding:
    """What was found.

    Attributes:
        epoch: the greatest that was written under, here or in the index that the alias points to.
        empty: whether the index holds no document.
        created: whether it was created just now.
    """

    epoch: int | None
    empty: bool
    created: bool


def plan(output: ElasticsearchOutput) -> Plan:
    """Plans the index of an output. Pure: the same options always give the same name."""
    mapping, shown = dict(output.mapping), {}
    if output.deletes == "tombstone":
        mapping["properties"] = {**mapping.get("properties", {}), DELETED_AT: {"type": "date"}}
        shown = {"filter": VISIBLE}
    settings = {"index.gc_deletes": _GC_DELETES, **dotted(output.settings)}
    content = msgspec.json.encode([mapping, settings, shown], order="deterministic")
    digest = hashlib.sha256(content).hexdigest()
    name = f"{output.index}-{digest[:8]}"
    return Plan(
        alias=output.index,
        name=name,
        write_alias=f"{name}-write",
        mapping=mapping,
        settings=settings,
        shown=shown,
        digest=digest,
    )


class GuardedIndex:
    """One output's index.

    Args:
        client: to ask with.
        key: the tail that owns it.
        output: its settings.
        heir_of: tails whose index it may be, too, and is this one's from the next `claim` on.
    """

    def __init__(
        self,
        client: Elasticsearch,
        key: TailKey,
        output: ElasticsearchOutput,
        *,
        heir_of: Collection[TailKey] = (),
    ) -> None:
        self._client = client
        self._key = key
        self._owners = {(tail.pillow, tail.source) for tail in (key, *heir_of)}
        self.output = output
        self.plan = plan(output)

    def open(self) -> IndexStanding:
        """Creates the index unless it is there, and tells what it remembers.

        A new alias points to it at once; one that points to another index stays until `publish`.

        Raises:
            ConfigError: the alias's name or the index is taken by something else.
            RetryableError, AccessError: see `translated`.
        """
        with translated():
            found = self._found()
            created = self.plan.name not in found
            self._check_pipeline()
            shown = any(self.plan.alias in index["aliases"] for index in found.values())
            if created:
                self._create(shown=shown)
            else:
                self._complete(found[self.plan.name]["aliases"], shown=shown)
            epochs = [owner["epoch"] for owner in map(_owner, found.values()) if "epoch" in owner]
            return IndexStanding(
                epoch=max(epochs, default=None), empty=created or self._is_empty(), created=created
            )

    def acquire(self, *, epoch: int, edits: int) -> None:
        """Notes epoch and number of edits durably. An epoch is never lowered.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translated`.
        """
        with translated():
            mapping = self._client.indices.get_mapping(index=self.plan.name)[self.plan.name]["mappings"]
            meta = mapping.get("_meta", {})
            epoch = max(epoch, meta.get(_OWNER, {}).get("epoch", 0))
            owner = {**self._ownership(), "epoch": epoch, "generation": edits}
            _acknowledged(
                self._client.indices.put_mapping(index=self.plan.name, meta={**meta, _OWNER: owner})
            )

    def epoch(self) -> int:
        """The epoch that was last claimed.

        Raises:
            FatalError: the index is gone.
            RetryableError, AccessError: see `translated`.
        """
        with translated():
            found = self._client.indices.get_mapping(index=self.plan.name)[self.plan.name]
            return int(_owner(found).get("epoch", 0))

    def publish(self) -> None:
        """Points the alias here and nowhere else, in one step.

        Raises:
            ConfigError, RetryableError, AccessError: see `open`.
        """
        with translated():
            found = self._found()
            older = [
                name
                for name, index in found.items()
                if self.plan.alias in index["aliases"] and name != self.plan.name
            ]
            if older:
                removed = [{"remove": {"index": name, "alias": self.plan.alias}} for name in older]
                _acknowledged(self._client.indices.update_aliases(actions=[*removed, self._show()]))

    def _found(self) -> dict[str, Any]:
        """The indices that matter, if they are there: those behind the alias, and ours."""
        found: dict[str, Any] = self._client.indices.get(
            index=[self.plan.alias, self.plan.name],
            features=["aliases", "mappings"],
            ignore_unavailable=True,
            flat_settings=True,
        ).body
        if self.plan.alias in found:
            raise ConfigError(
                f"{self.plan.alias!r} is an index, so no alias can have that name.",
                remedy=f"choose another name, or delete the index {self.plan.alias!r}",
            )
        for name, index in found.items():
            self._refuse_foreign(name, _owner(index))
        return found

    def _refuse_foreign(self, name: str, owner: Mapping[str, Any]) -> None:
        if not owner:
            whose = "was not created by pillowd"
        elif owner.get("format") != _FORMAT:
            whose = f"is of format {owner.get('format')}, this pillowd knows format {_FORMAT}"
        elif (owner.get("pillow"), owner.get("source")) not in self._owners:
            whose = f"belongs to pillow {owner.get('pillow')!r} of {owner.get('source')!r}"
        else:
            return
        raise ConfigError(
            f"The index {name!r} {whose}, so {self._key} can't write to {self.plan.alias!r}.",
            remedy="choose another index name, or delete that index if nobody needs it",
        )

    def _check_pipeline(self) -> None:
        """Refuses a pipeline that is missing: every document would be a dead letter for it."""
        name = self.output.pipeline
        if name is None:
            return
        try:
            self._client.ingest.get_pipeline(id=name, summary=True)
        except NotFoundError as error:
            raise ConfigError(
                f"There is no ingest pipeline {name!r}.", remedy="create it, or see `pipeline`"
            ) from error

    def _ownership(self) -> dict[str, Any]:
        return {"format": _FORMAT, "pillow": self._key.pillow, "source": self._key.source}

    def _create(self, *, shown: bool) -> None:
        meta = {**self.plan.mapping.get("_meta", {}), _OWNER: self._ownership()}
        aliases: dict[str, Any] = {self.plan.write_alias: {}}
        if not shown:
            aliases[self.plan.alias] = self.plan.shown
        try:
            created = self._client.indices.create(
                index=self.plan.name,
                mappings={**self.plan.mapping, "_meta": meta},
                settings=dict(self.plan.settings),
                aliases=aliases,
            )
        except BadRequestError as error:
            if error.message == "resource_already_exists_exception":
                raise RetryableError(
                    f"The index {self.plan.name} was created by somebody just now."
                ) from error
            raise
        _acknowledged(created)

    def _complete(self, aliases: Mapping[str, Any], *, shown: bool) -> None:
        """Gives an index that is there the aliases that it lacks."""
        actions: list[Mapping[str, Any]] = []
        if self.plan.write_alias not in aliases:
            actions.append({"add": {"index": self.plan.name, "alias": self.plan.write_alias}})
        if not shown:
            actions.append(self._show())
        if actions:
            _acknowledged(self._client.indices.update_aliases(actions=actions))

    def _show(self) -> Mapping[str, Any]:
        return {"add": {"index": self.plan.name, "alias": self.plan.alias, **self.plan.shown}}

    def _is_empty(self) -> bool:
        self._client.indices.refresh(index=self.plan.name)
        answer = self._client.search(
            index=self.plan.name,
            size=0,
            terminate_after=1,
            track_total_hits=True,
            allow_partial_search_results=False,
        )
        return bool(answer["hits"]["total"]["value"] == 0)


def _owner(index: Mapping[str, Any]) -> Mapping[str, Any]:
    owner = index["mappings"].get("_meta", {}).get(_OWNER, {})
    return owner if isinstance(owner, Mapping) else {}


def _acknowledged(answer: Any) -> None:
    """An unacknowledged change of the cluster state may come later: ask again."""
    if not answer["acknowledged"]:
        raise RetryableError("Elasticsearch did not acknowledge a change of the cluster's state in time.")
