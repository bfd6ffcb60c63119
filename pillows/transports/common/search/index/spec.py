"""The index that an output needs: its name, mapping and settings. Pure.

The index's name is the alias, a digest of mapping and settings, and a build number: a mapping that changed
in a way that rows can't follow is another index beside the old one, and so is a rebuild with the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pillows.transports.common.search.options import SearchOutput, flatten_settings

#: How long the server remembers the version of a deleted document; by itself 60 s.
_GC_DELETES = "1h"


class IndexSpec(Struct, frozen=True, kw_only=True):
    """The index that an output needs.

    Attributes:
        alias: the name for searches.
        build: the number of the build.
        mapping: of the index.
        settings: of the index, dotted, each beginning with `index.`.
        alias_properties: with tombstones, a filter that hides them.
        digest: of mapping, settings and alias properties.
    """

    alias: str
    build: int
    mapping: Mapping[str, Any]
    settings: Mapping[str, Any]
    alias_properties: Mapping[str, Any]
    digest: str

    @property
    def prefix(self) -> str:
        """The name of the index without the build number."""
        return f"{self.alias}-{self.digest[:8]}"

    @property
    def name(self) -> str:
        """The name of the index."""
        return f"{self.prefix}-{self.build}"

    def get_build(self, name: str) -> int:
        """Return the build number in the name of an index of this alias and digest; 0 for another name."""
        number = name.removeprefix(f"{self.prefix}-")
        return int(number) if number != name and number.isdigit() else 0

    @property
    def write_alias(self) -> str:
        """The alias that is written to."""
        return f"{self.name}-write"


def query_without(field: str) -> Mapping[str, Any]:
    """Return the query for the documents that lack a field."""
    return {"bool": {"must_not": {"exists": {"field": field}}}}


def make_spec(output: SearchOutput) -> IndexSpec:
    """Return the index of an output. Pure: the same options always give the same name."""
    mapping, alias_properties = dict(output.mapping), {}
    if output.deleted_field:
        mapping["properties"] = {**mapping.get("properties", {}), output.deleted_field: {"type": "date"}}
    if output.deletes == "tombstone":
        alias_properties = {"filter": query_without(output.deleted_field)}
    settings = {"index.gc_deletes": _GC_DELETES, **flatten_settings(output.settings)}
    content = msgspec.json.encode([mapping, settings, alias_properties], order="deterministic")
    return IndexSpec(
        alias=output.index,
        build=output.build.number,
        mapping=mapping,
        settings=settings,
        alias_properties=alias_properties,
        digest=hashlib.sha256(content).hexdigest(),
    )
