"""Settings that a cluster of either product has, and those of one index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pillows.options import Duration, Options, OutputOptions, Size
from pillows.redaction import STRAY_PASSWORD_REMEDY, find_stray_password
from pillows.transports.common.addresses import to_server_address
from pillows.transports.common.search.encoder import DELETED_AT, MARKED_AT

#: What the name of an index or alias may be: https://www.elastic.co/docs/api, "Create an index".
#: 255 bytes at most, of which our suffixes need up to 20 (digest, build number and `-write`).
_ALIAS = re.compile(r"(?![-_+.])[^A-Z\\/*?\"<>| ,#:\x00-\x1f]{1,235}")


class SearchConnection(Options):
    """A cluster.

    Attributes:
        hosts: base URLs of one or several nodes, with their ports.
        ca_bundle: certificates to trust instead of the system's.
        timeout: longest time of one request; a bulk request that takes longer may still be applied.
        max_request: bytes of one bulk request; a single larger document goes alone.
        connections_per_node: requests in flight to one node.
        compress: gzip what we send; worth it over a network, not on one machine.
    """

    hosts: tuple[str, ...] = Field(min_length=1)
    ca_bundle: Path | None = None
    timeout: Duration = Field(default=60.0, gt=0)
    max_request: Size = Field(default=10 * 2**20, gt=0)
    connections_per_node: int = Field(default=4, ge=1)
    compress: bool = False

    @field_validator("hosts")
    @classmethod
    def _hosts_are_urls(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if stray := find_stray_password(host):
                raise ValueError(f"{stray}; {STRAY_PASSWORD_REMEDY}, in `auth`")
            parts = urlsplit(host)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port is None:
                raise ValueError("needs scheme, host and port, such as https://search.example:9200")
            if parts.username is not None:
                raise ValueError("holds a user or password; put them into `auth`, where they are never shown")
        return hosts


class SearchOutput(OutputOptions):
    """One index.

    Attributes:
        index: the alias to search. The name of the index behind it ends with a digest of mapping and
            settings and a build number. Fields and settings that can be added or changed in that index are;
            for any other change, and a `checkpoint reset`, another index is filled.
        replaces: an index that pillowd did not create, and that the alias may point to until the first pass
            has filled an index of this pillow. Then the alias moves; the former index stays.
        mapping: mapping of the index, as in "Create index", without `mappings` around it.
        settings: settings of the index, nested or dotted; `index.gc_deletes` is 1h unless given.
        pipeline: an ingest pipeline for every document.
        deletes: `hard` leaves nothing of a deleted document; its version is remembered for
            `index.gc_deletes`, not over a restart of the server. `tombstone` leaves its version under
            its id, hidden from searches through the alias. `mark` keeps the document, with the time in
            `_deleted_at`.
        tombstone_ttl: when tombstones are removed.
        on_misfit: what happens to a document with a field that the mapping refuses: `dead_letter`; or
            `unindexed`, where that field moves into `pillowd_unindexed`, which is kept but not searched, and
            the others are indexed.
        many: not supported; rejected with an explanation.
    """

    ADDRESS_KEYS: ClassVar[tuple[str, ...]] = ("index",)
    NOT_SHAPING: ClassVar[frozenset[str]] = frozenset({"tombstone_ttl", "on_misfit", "replaces", "settings"})

    index: str
    # Older digests of pipelines have no such key.
    replaces: str | None = Field(default=None, exclude_if=lambda name: name is None)
    mapping: Mapping[str, Any] = {}
    settings: Mapping[str, Any] = {}
    pipeline: str | None = None
    deletes: Literal["hard", "tombstone", "mark"] = "hard"
    tombstone_ttl: Duration = Field(default=7 * 86400.0, ge=0)
    # Older digests of pipelines have no such key.
    on_misfit: Literal["dead_letter", "unindexed"] = Field(
        default="dead_letter", exclude_if=lambda choice: choice == "dead_letter"
    )
    many: bool = False

    @property
    def deleted_field(self) -> str:
        """The field that only deleted documents have; empty if they are removed."""
        return {"tombstone": DELETED_AT, "mark": MARKED_AT}.get(self.deletes, "")

    def describe_takeover_risk(self) -> str:
        """Return that the versions of deleted documents must be kept; see `OutputOptions`."""
        return "set `deletes: tombstone` or `deletes: mark`" if self.deletes == "hard" else ""

    def addresses(self, connection: Any) -> frozenset[tuple[str, ...]]:
        """Return the alias's address for each host of the cluster; see `OutputOptions.addresses`.

        The index of another build has another address than that of the live build.
        """
        place = self.index if self.build.live else f"{self.index}~{self.build.number}"
        return frozenset((connection.type, to_server_address(host), place) for host in connection.hosts)

    @field_validator("index")
    @classmethod
    def _check_name(cls, index: str) -> str:
        if not _ALIAS.fullmatch(index):
            raise ValueError(
                'is not a valid index name; write it in lower case, without spaces and \\ / * ? " < > | , # :'
            )
        return index

    @field_validator("mapping")
    @classmethod
    def _check_mapping(cls, mapping: Mapping[str, Any]) -> Mapping[str, Any]:
        if "mappings" in mapping:
            raise ValueError(
                "has a key `mappings`; move its value up one level, and the index settings to `settings`"
            )
        if MARKED_AT in mapping.get("properties", {}):
            raise ValueError(
                f"has a field {MARKED_AT!r}, which `deletes: mark` adds itself; remove it from the mapping"
            )
        return mapping

    @model_validator(mode="after")
    def _check_deletes(self) -> SearchOutput:
        if self.deleted_field and self.mapping.get("enabled") is False:
            raise ValueError(
                f"needs an indexed field for `deletes: {self.deletes}`; "
                "remove `enabled: false` from the mapping"
            )
        if self.deletes == "mark" and ("_source" in self.mapping or _changes_source(self.settings)):
            raise ValueError(
                "needs documents that are stored as they were sent for `deletes: mark`; remove `_source` "
                "from the mapping, and `index.mapping.source.mode`, `index.mode` and `index.derived_source` "
                "from the settings"
            )
        return self

    @field_validator("many")
    @classmethod
    def _check_many(cls, many: bool) -> bool:
        if many:
            raise ValueError("a document has at most one row in an index; leave arrays inside the document")
        return many


def _changes_source(settings: Mapping[str, Any]) -> bool:
    """Return whether an index may keep something else than the documents that were sent.

    In Elasticsearch the modes `logsdb` and `time_series` imply a synthetic `_source`; OpenSearch's name for
    that is derived source.
    """
    flat = flatten_settings(settings)
    return (
        "index.mapping.source.mode" in flat
        or flat.get("index.mode", "standard") != "standard"
        or str(flat.get("index.derived_source.enabled", False)).lower() != "false"
    )


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in one of the forms that both products accept: `index.number_of_shards`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in _flat(value).items()}
        else:
            flat[key] = value
    return {key if key.startswith("index.") else f"index.{key}": value for key, value in flat.items()}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = _flat(value) if isinstance(value, Mapping) else {"": value}
        flat |= {f"{key}.{name}".rstrip("."): v for name, v in inner.items()}
    return flat
