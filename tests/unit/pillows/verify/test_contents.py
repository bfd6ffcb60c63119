"""Whose rows are compared, and which are other than the pipeline makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from pillows.errors import PermanentError, RetryableError
from pillows.models import Change, Document, DocumentRows
from pillows.pillow import Pillow
from pillows.stages.filters import KeepAll
from pillows.stages.transforms import ChunkedTransform, PythonTransform
from pillows.verify.comparison_table import ComparisonTable
from pillows.verify.contents import GROUP_DOCUMENTS, ContentComparison, ContentSelection, Target
from tests.support.clock import FakeClock
from tests.support.memory_transport import MemoryTransport


@pytest.fixture
def table() -> Iterator[ComparisonTable]:
    """500 documents, of which some have a dead letter, and some no rows."""
    with ComparisonTable() as made:
        made.put_source((f"{n:03}", "1-a", 1, 0 if n % 50 == 7 else 1) for n in range(500))
        made.exclude(["003", "404"])
        yield made


def selected(selection: ContentSelection, table: ComparisonTable) -> list[str]:
    groups = list(selection.select(table))
    assert all(len(group) <= GROUP_DOCUMENTS for group in groups)
    return [id for group in groups for id in group]


def test_all_documents_are_selected_that_may_have_rows(table: ComparisonTable) -> None:
    found = selected(ContentSelection(), table)
    assert len(found) == ContentSelection().count(table) == 488
    assert found == sorted(found)
    assert not {"003", "404", "007", "057"} & set(found)


def test_a_sample_has_its_size_and_is_drawn_again_by_its_seed(table: ComparisonTable) -> None:
    one = selected(ContentSelection(sample=100, seed=1), table)
    assert len(set(one)) == ContentSelection(sample=100).count(table) == 100
    assert one == selected(ContentSelection(sample=100, seed=1), table)
    assert one != selected(ContentSelection(sample=100, seed=2), table)
    assert set(one) <= set(selected(ContentSelection(), table))


def test_a_sample_of_more_than_there_are_is_all(table: ComparisonTable) -> None:
    assert selected(ContentSelection(sample=9_999), table) == selected(ContentSelection(), table)


class Asked(MemoryTransport):
    """Remember which rows it is asked for; those of `other` differ."""

    verifiable = True

    def __init__(self, reason: str = "", other: Sequence[str] = ()) -> None:
        super().__init__()
        self.reason = reason
        self.other = set(other)
        self.asked: dict[str, Mapping[str, Any]] = {}

    def describe_incomparable(self, output: str) -> str:
        return self.reason

    def find_altered(self, output: str, documents: Sequence[DocumentRows]) -> set[str]:
        assert all(document.rows[output] for document in documents)
        self.asked |= {document.id: document.rows for document in documents}
        return self.other & {document.id for document in documents}


class Source:
    """Documents by id; `errors` are raised by the next readings."""

    def __init__(self, **docs: dict[str, Any]) -> None:
        self.docs = docs
        self.errors: list[Exception] = []
        self.most = 1000

    def current(self, ids: Sequence[str]) -> list[Change]:
        if self.errors:
            raise self.errors.pop(0)
        if len(ids) > self.most:
            raise PermanentError("they are too large together")
        return [self._read(id) for id in ids]

    def _read(self, id: str) -> Change:
        doc = self.docs.get(id)
        if doc is None:
            return Change(id, ("0-",), 0, deleted=True)
        return Change(id, ("1-a",), 1, raw=msgspec.Raw(msgspec.json.encode(doc)))

    def fetch(self, change: Change) -> Document:
        raise AssertionError("it came along")

    def attachment(self, *_: object) -> bytes | None:
        raise AssertionError("none is wanted")


def rows(doc: dict[str, Any]) -> Any:
    if doc.get("bad"):
        raise SystemExit(3)
    return None if doc.get("none") else doc


def compare(
    source: Source, *transports: Asked, clock: FakeClock | None = None, chunked: bool = False
) -> ContentComparison:
    transform = (
        ChunkedTransform(lambda docs: [rows(doc) for doc in docs], ["cases"], chunk=3)
        if chunked
        else PythonTransform(rows, ["cases"])
    )
    return ContentComparison(
        Pillow(name="p", outputs=["cases"], filter=KeepAll(), transform=transform),
        source,  # type: ignore[arg-type] # no more is asked for here
        [Target(transport=each, output="cases", bit=0) for each in transports],
        clock=clock or FakeClock(),
        source_timeout_seconds=30.0,
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_the_pipeline_s_rows_are_compared_in_every_target(chunked: bool) -> None:
    source = Source(a={"n": 1}, b={"n": 2}, none={"none": True}, bad={"bad": True})
    one, two = Asked(other=["a"]), Asked(other=["b"])
    found = compare(source, one, two, chunked=chunked).find_altered(["a", "b", "none", "bad", "gone"])
    assert found == {0: {"a", "bad"}, 1: {"b", "bad"}}
    assert set(one.asked) == set(two.asked) == {"a", "b"}


def test_a_target_that_cannot_be_compared_is_not_asked_and_says_why() -> None:
    silent, asked = Asked("a pipeline changes them"), Asked(other=["a"])
    comparison = compare(Source(a={"n": 1}), silent, asked)
    assert comparison.find_altered(["a"]) == {1: {"a"}}
    assert comparison.incomparable == {0: "a pipeline changes them"}
    assert not silent.asked


def test_documents_that_are_too_large_together_are_read_apart() -> None:
    source, asked = Source(a={"n": 1}, b={"n": 2}, c={"n": 3}), Asked()
    source.most = 1
    assert compare(source, asked).find_altered(["a", "b", "c"]) == {0: set()}
    assert set(asked.asked) == {"a", "b", "c"}


def test_a_source_that_is_away_is_waited_for_and_not_for_ever() -> None:
    source, clock = Source(a={"n": 1}), FakeClock()
    source.errors = [RetryableError("away")] * 5
    assert compare(source, Asked(), clock=clock).find_altered(["a"]) == {0: set()}
    source.errors = [RetryableError("away")] * 1000
    with pytest.raises(RetryableError):
        compare(source, Asked(), clock=clock).find_altered(["a"])
