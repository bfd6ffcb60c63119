"""The rows of documents can be compared with what the target holds, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pillows.models import DocumentRows
from pillows.transports.base import KeyedTransport
from tests.conformance.odd_documents import odd_ids, odd_rows
from tests.conformance.steps import opened
from tests.conformance.target import Target, batch, document, gone
from tests.support.sizes import size

_UNIQUE = count()


class ContentConformance:
    """`find_altered` tells the rows that a write would store from all others."""

    def test_i6_what_was_written_is_not_altered_and_anything_else_is(self, target: Target) -> None:
        written = [
            document(
                "raw", 1, b'{"_id": "raw", "_rev": "1-a", "b": 1.10, "a": [true, null, {"x": "\\u00fc"}]}'
            ),
            document("mapping", 2, {"n": 1, "t": "text", "l": [1, 2.5, {"a": None}]}),
        ]
        with comparing(target, "docs", written) as transport:
            assert transport.find_altered("docs", written) == set()
            for row in (b'{"b": 1.10, "a": [1, null, {"x": "\\u00fc"}]}', b'{"b": 1.10}', {"b": "1.10"}, {}):
                assert transport.find_altered("docs", [document("raw", 1, row), written[1]]) == {"raw"}

    def test_i6_the_order_of_keys_and_the_way_to_write_a_number_are_no_alteration(
        self, target: Target
    ) -> None:
        written = [document("a", 1, b'{"a": {"x": 1, "y": [2]}, "b": "\\u00fc", "c": 3}')]
        with comparing(target, "docs", written) as transport:
            again = b'{"c":3, "b": "\xc3\xbc", "a": {"y": [2], "x": 1}}'
            assert transport.find_altered("docs", [document("a", 1, again)]) == set()

    def test_i6_only_a_document_of_the_same_version_is_compared(self, target: Target) -> None:
        written = [document("a", 2, {"n": 1}), document("b", 2, {"n": 1})]
        with comparing(target, "docs", written) as transport:
            others = [document("a", 1, {"n": 2}), document("b", 3, {"n": 2}), document("never", 1, {"n": 2})]
            assert transport.find_altered("docs", others) == set()

    def test_i6_a_deleted_document_is_not_compared(self, target: Target) -> None:
        with comparing(target, "docs", [document("a", 1, {"n": 1}), gone("b", 1)]) as transport:
            assert transport.find_altered("docs", [document("b", 1, {"n": 1})]) == set()

    def test_i6_a_row_is_altered_whatever_the_epoch(self, target: Target) -> None:
        with opened(target, "docs", epoch=7) as transport:
            transport.write(batch(document("a", 1, {"n": 1}), epoch=7))
        with comparing(target, "docs", []) as transport:
            assert transport.find_altered("docs", [document("a", 1, {"n": 1})]) == set()
            assert transport.find_altered("docs", [document("a", 1, {"n": 2})]) == {"a"}

    def test_i6_every_child_row_is_compared(self, target: Target) -> None:
        if not target.has_many:
            pytest.skip("a document has one row there")
        rows = [{"n": 1}, {"n": 2}, {"n": 3}]
        with comparing(target, "lines", [document("a", 1, *rows, output="lines")]) as transport:
            for other in ([*rows, {"n": 4}], rows[:2], [rows[1], rows[0], rows[2]], [*rows[:2], {"n": 9}]):
                altered = transport.find_altered("lines", [document("a", 1, *other, output="lines")])
                assert altered == {"a"}
            assert transport.find_altered("lines", [document("a", 1, *rows, output="lines")]) == set()

    def test_i6_documents_drawn_at_random_are_not_altered_unless_they_are(self, target: Target) -> None:
        with opened(target, "docs") as writer, comparing(target, "docs", []) as transport:

            @settings(
                max_examples=size(ci=40, proof=1000),
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            )
            @given(drawn=st.lists(st.tuples(odd_ids, odd_rows), min_size=1, max_size=8))
            def compare(drawn: Sequence[tuple[str, Any]]) -> None:
                turn = next(_UNIQUE)
                documents = [document(f"{turn}-{n}-{id}", 1 + n, row) for n, (id, row) in enumerate(drawn)]
                dead = writer.write(batch(*documents)).dead
                written = [each for each in documents if each.id not in dead]
                altered = [_alter(each) for each in written]
                if written:
                    assert transport.find_altered("docs", written) == set()
                    assert transport.find_altered("docs", altered) == {each.id for each in altered}

            compare()


def _alter(written: DocumentRows) -> DocumentRows:
    """Return the document with one field more."""
    (row,) = written.rows["docs"]
    more = b'"altered-field":1'
    if not isinstance(row, msgspec.Raw):
        other: Any = {**row, "altered-field": 1}
    else:
        text = bytes(row).rstrip()
        other = msgspec.Raw(text[:-1] + (b"" if text[1:-1].strip() == b"" else b",") + more + b"}")
    return msgspec.structs.replace(written, rows={"docs": [other]})


@contextmanager
def comparing(target: Target, output: str, written: Sequence[DocumentRows]) -> Iterator[KeyedTransport]:
    """Write documents with one transport; yield another, which is never opened, as `verify` has it."""
    if written:
        with opened(target, output) as writer:
            assert not writer.write(batch(*written)).dead
    transport: Any = target.transport(output)
    try:
        if reason := transport.describe_incomparable(output):
            pytest.skip(reason)
        yield transport
    finally:
        transport.close()
