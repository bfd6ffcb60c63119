"""Which of a tail's indices are in use, while another build has a higher epoch."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from checkpoints import TailKey
from pillows.transports.common.search.index.old_indices import IndexUse, OldIndices
from pillows.transports.common.search.index.ownership import Ownership
from pillows.transports.common.search.index.spec import IndexSpec, make_spec
from pillows.transports.common.search.options import SearchOutput

KEY = TailKey("cases", "couch/cases")


def spec(build: int = 1, **fields: Any) -> IndexSpec:
    found = make_spec(SearchOutput(index="cases", mapping={"properties": fields}))
    return replace(found, build=build)


class Cluster:
    """Describes indices as a cluster does."""

    def __init__(self, *indices: tuple[IndexSpec, int], shown: IndexSpec) -> None:
        self._indices = {
            each.name: {
                "aliases": {"cases": {}} if each == shown else {},
                "mappings": {"_meta": {"pillowd": {**Ownership(KEY).make_owner(each), "epoch": epoch}}},
                "settings": {"index.creation_date": "1000"},
            }
            for each, epoch in indices
        }

    def call(self, _: str, path: str, **__: object) -> Any:
        return {"indices": {}} if path.endswith("docs,store") else self._indices


def test_an_index_that_is_written_is_not_old_because_a_rebuild_has_a_higher_epoch() -> None:
    old, searched, written = spec(), spec(a={"type": "long"}), spec(b={"type": "long"})
    building = spec(2)
    cluster: Any = Cluster((old, 1), (searched, 2), (written, 3), (building, 4), shown=searched)
    found = {each.name: each.use for each in OldIndices(cluster, KEY, searched).list()}
    assert found == {
        old.name: IndexUse.OLD,
        searched.name: IndexUse.SEARCHED,
        written.name: IndexUse.WRITTEN,
        building.name: IndexUse.BUILD,
    }
