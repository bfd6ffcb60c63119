"""Which refused writes are replays, and which documents have a lower revision number in the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from pillows.delivery.stale_writes import (
    RECHECK_SECONDS,
    RECHECKS,
    confirm_regressed,
    find_equal,
    find_newer_in_target,
    has_regression,
    has_returned,
    rows_to_rewrite,
)
from pillows.errors import FencedError
from pillows.models import Batch, DocumentRows, write_version


def rows(id: str, version: int) -> DocumentRows:
    return DocumentRows(id=id, rev=f"{version}-a", leaf_version=version, rows={"cases": ({"n": version},)})


def batch(*documents: DocumentRows, epoch: int = 2) -> Batch:
    return Batch(documents=documents, epoch=epoch)


def last_of(*documents: DocumentRows) -> dict[str, DocumentRows]:
    return {document.id: document for document in documents}


@pytest.mark.parametrize(
    ("versions", "regressed"),
    [((1,), False), ((1, 2), False), ((2, 2), False), ((2, 1), True), ((1, 3, 2), True), ((2, 1, 3), False)],
)
def test_an_older_state_behind_the_newest_one_is_a_regression(
    versions: Sequence[int], regressed: bool
) -> None:
    arrived = [rows("a", version) for version in versions]
    assert has_regression([rows("a", max(versions))], arrived) is regressed


@pytest.mark.parametrize(
    ("stored", "newer"),
    [
        ((4,), {}),
        ((5,), {}),
        ((6,), {"a": 6}),
        ((6, 9), {"a": 9}),
        ((9, 6), {"a": 9}),
        ((4, 6), {"a": 6}),
    ],
)
def test_the_highest_version_that_a_target_holds_counts(stored: Sequence[int], newer: dict[str, int]) -> None:
    refused = [{"a": write_version(2, version)} for version in stored]
    found = find_newer_in_target(batch(rows("a", 5)), refused, last_of(rows("a", 5)))
    assert found == {id: write_version(2, version) for id, version in newer.items()}


def test_what_came_before_in_the_same_batch_is_newer_than_what_came_last() -> None:
    found = find_newer_in_target(batch(rows("a", 5), rows("b", 1)), [], last_of(rows("a", 3), rows("b", 1)))
    assert found == {"a": write_version(2, 5)}


def test_of_the_batch_and_the_target_the_newer_one_counts() -> None:
    last = last_of(rows("a", 3))
    for stored, expected in ((4, 5), (5, 5), (7, 7)):
        refused = [{"a": write_version(2, stored)}]
        assert find_newer_in_target(batch(rows("a", 5)), refused, last) == {"a": write_version(2, expected)}


@pytest.mark.parametrize(("epoch", "fenced"), [(1, False), (2, False), (3, True)])
def test_a_later_epoch_in_the_target_is_a_fence(epoch: int, fenced: bool) -> None:
    refused = [{"a": write_version(epoch, 1)}]
    if not fenced:
        assert find_newer_in_target(batch(rows("a", 5)), refused, last_of(rows("a", 5))) == {}
        return
    with pytest.raises(FencedError, match="of epoch 3, ours is 2"):
        find_newer_in_target(batch(rows("a", 5)), refused, last_of(rows("a", 5)))


def test_equal_versions_are_those_of_this_epoch_in_any_target() -> None:
    refused = [{"a": write_version(2, 5), "b": write_version(2, 8)}, {"c": write_version(2, 1)}]
    documents = batch(rows("a", 5), rows("b", 7), rows("c", 1))
    assert find_equal(documents, refused) == {"a": 5, "c": 1}


@pytest.mark.parametrize(
    ("refused", "returned"),
    [
        ([], False),
        ([{}], False),
        ([{"purged": write_version(2, 0)}], False),
        ([{"purged": write_version(2, 1)}], True),
        ([{"purged": write_version(1, 3)}], True),
        ([{"purged": write_version(2, 0)}, {"purged": write_version(2, 4)}], True),
        ([{"other": write_version(2, 9)}], False),
    ],
)
def test_a_purged_document_has_returned_if_a_target_kept_rows_of_it(
    refused: Sequence[Mapping[str, int]], returned: bool
) -> None:
    assert has_returned(batch(rows("purged", 0), rows("other", 5)), refused) is returned


class Source:
    """Answers one look after the other, and notes what is asked."""

    def __init__(self, *answers: Mapping[str, int]) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.waited: list[float] = []

    def leaves(self, ids: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(list(ids))
        return self.answers.pop(0)

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)


def confirm(source: Source, **suspected: int) -> dict[str, int]:
    stored = {id: write_version(2, version) for id, version in suspected.items()}
    given: Any = source
    return confirm_regressed(stored, given, given)


def test_a_document_that_the_source_has_at_that_version_has_not_regressed() -> None:
    source = Source({"a": 5})
    assert confirm(source, a=5) == {}
    assert (source.asked, source.waited) == ([["a"]], [])


def test_a_copy_of_a_cluster_that_lags_is_asked_again_for_what_is_still_behind() -> None:
    source = Source({"a": 4, "b": 9}, {"a": 5})
    assert confirm(source, a=5, b=9) == {}
    assert source.asked == [["a", "b"], ["a"]]
    assert source.waited == [RECHECK_SECONDS]


def test_what_is_behind_at_the_last_look_too_has_regressed_to_that_version() -> None:
    source = Source(*[{"a": 1}] * (RECHECKS - 1), {"a": 2})
    assert confirm(source, a=5, gone=1) == {"a": 2, "gone": 0}
    assert source.waited == [RECHECK_SECONDS] * (RECHECKS - 1)
    assert (RECHECKS, RECHECK_SECONDS) == (3, 2.0)


def test_nothing_suspected_asks_nothing() -> None:
    source = Source()
    assert confirm(source) == {}
    assert source.asked == []


def test_rows_are_written_again_and_those_of_missing_documents_go() -> None:
    last = last_of(rows("a", 2), rows("gone", 1), rows("other", 3))
    gone = DocumentRows(id="gone", rev="1-a", leaf_version=1, rows={})
    assert rows_to_rewrite(last, {"a": 2, "gone": 0}) == [rows("a", 2), gone]
