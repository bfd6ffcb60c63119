"""The differences between source and target, for everything that the two can hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pillows.transports.base import Stored
from pillows.verify.comparison_table import ComparisonTable


@pytest.fixture
def scratch() -> Iterator[ComparisonTable]:
    with ComparisonTable() as made:
        yield made


def found(scratch: ComparisonTable) -> dict[str, list[str]]:
    """Ids by the kind of difference."""
    kinds = {kind: scratch.examples(0, kind, 9) for kind in ("missing", "stale", "phantom")}
    return {kind: ids for kind, ids in kinds.items() if ids}


def test_a_replica_s_own_design_documents_are_no_phantoms(scratch: ComparisonTable) -> None:
    """Design documents that the source does not list are no phantoms either: a pass spares both."""
    scratch.put_source([("a", "1-a", 1, 1)])
    scratch.put_stored(
        0, [Stored(id=id, rev="1-a") for id in ("a", "b", "_design/own", "_design", "_designs/c")]
    )
    scratch.compare([0])
    assert found(scratch) == {"phantom": ["_design", "_designs/c", "b"]}


def test_a_replica_s_design_documents_that_the_source_tells_of_are_compared(scratch: ComparisonTable) -> None:
    source = [("missing", "1-a", 1), ("stale", "2-b", 1), ("phantom", "2-c", 0)]
    scratch.put_source((f"_design/{id}", rev, 1, outputs) for id, rev, outputs in source)
    scratch.put_stored(0, [Stored(id=f"_design/{id}", rev="1-a") for id in ("stale", "phantom")])
    scratch.compare([0])
    assert found(scratch) == {kind: [f"_design/{kind}"] for kind in ("missing", "stale", "phantom")}


def test_a_design_document_has_no_place_where_rows_are_written(scratch: ComparisonTable) -> None:
    scratch.put_stored(0, [Stored(id="_design/rows", rev="1-a", write_version=7)])
    scratch.compare([0])
    assert found(scratch) == {"phantom": ["_design/rows"]}


def test_rows_that_outlived_their_document_are_kept_and_others_phantoms(
    scratch: ComparisonTable,
) -> None:
    """A dead letter says nothing of what should be there, so its document is neither."""
    scratch.put_source([("deleted", "2-a", 2, None), ("empty", "1-a", 1, 0), ("dead", "2-a", 2, None)])
    scratch.put_stored(0, [Stored(id=id, write_version=1) for id in ("deleted", "purged", "empty", "dead")])
    scratch.exclude(["dead"])
    scratch.compare([0], outlive=True)
    assert (found(scratch), scratch.kept(0)) == ({"phantom": ["empty"]}, 2)


def test_a_document_with_a_dead_letter_is_left_out(scratch: ComparisonTable) -> None:
    scratch.put_source([(id, "2-a", 2, outputs) for id, outputs in (("a", 1), ("b", 1), ("c", 0))])
    scratch.put_stored(0, [Stored(id="b", write_version=1), Stored(id="c", write_version=1)])
    scratch.exclude(["a", "b", "c"])
    scratch.compare([0])
    assert (found(scratch), scratch.size("source")) == ({}, 3)
