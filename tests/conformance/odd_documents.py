"""One document, whatever is in it, never stops the others: it is written, or dead with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pillows.models import DocumentRows, Row, WriteResult, write_version
from pillows.transports.base import Transport
from tests.conformance.steps import opened, rows
from tests.conformance.target import Target, batch, document

#: Levels of nesting: more than Python's limit, as many as CouchDB 3.5 takes, and more.
LEVELS = [1_500, 10_000, 50_000]

_UNIQUE = count()

_texts = st.text(max_size=20) | st.text(st.characters(codec=None), max_size=20)
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400])
    | st.floats()
    | st.decimals()
    | _texts
    | st.binary(max_size=4)
    | st.sampled_from(["x" * 100_000, "\0", "\x01", "\\u0000", "\\", "🦉"])
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3) | st.sets(_texts),
    max_leaves=8,
)
_mappings = st.dictionaries(st.sampled_from(["n", "t", "_x", "a.b", "", "ü"]) | _texts, _values, max_size=4)


@st.composite
def _raws(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a document as a server may send them: JSON, or broken in a few places."""
    value = draw(st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.integers() | st.text()))
    raw = msgspec.json.encode(value, order="sorted")
    levels = draw(st.sampled_from([0, 0, 0, 1_500, 10_000]))
    if levels:
        raw = raw[:-1] + (b"," if value else b"") + b'"deep":' + b"[" * levels + b"]" * levels + b"}"
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(raw)))
        broken = st.sampled_from([b"\xff", b"\\ud800", b"1e400", b"NaN", b"\n", b""])
        raw = raw[:at] + draw(broken) + raw[at + 1 :]
    return raw


odd_rows: st.SearchStrategy[Row | bytes] = _mappings | _raws()
odd_ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30) | st.just("x" * 600)
odd_versions = st.integers(1, 2**40) | st.sampled_from([2**60 - 1, 2**63, 2**64])


class OddDocumentConformance:
    """JSON's limits, nesting, texts, and documents drawn at random."""

    @pytest.mark.parametrize(
        ("value", "kind"), [(float("nan"), "float"), (float("inf"), "float"), ({1}, "set"), (b"x", "bytes")]
    )
    def test_a4_what_json_cannot_hold_is_dead_with_path_and_type(
        self, target: Target, value: object, kind: str
    ) -> None:
        result = _write_beside_another(target, {"a": [{"b": value}]})
        assert set(result.dead) == {"odd"}
        assert "a[0].b is " in result.dead["odd"]
        assert kind in result.dead["odd"]

    def test_a4_a_decimal_is_written(self, target: Target) -> None:
        assert not _write_beside_another(target, {"price": Decimal("1.10")}).dead
        assert float(rows(target)["odd"][0]["price"]) == 1.1

    @pytest.mark.parametrize("levels", LEVELS)
    def test_b1_a_deeply_nested_document_is_written_or_dead(self, target: Target, levels: int) -> None:
        result = _write_beside_another(target, b'{"a":%b1%b}' % (b"[" * levels, b"]" * levels))
        assert set(result.dead) <= {"odd"}

    @pytest.mark.parametrize("generation", [2**40, 2**60 - 1, 2**63, 2**70])
    def test_b4_a_document_of_a_huge_revision_is_dead_and_has_no_version(
        self, target: Target, generation: int
    ) -> None:
        odd = document("odd", generation, {"n": 1})
        deleted = document("deleted", generation)
        with opened(target, "docs") as transport:
            result = _write(transport, [odd, deleted, document("other", 1, {"n": 1})])
        assert set(result.dead) == {"odd", "deleted"}
        assert set(rows(target)) == {"other"}
        assert target.write_version("docs", "odd") is None

    def test_a_document_drawn_at_random_never_stops_the_others(self, target: Target) -> None:
        with opened(target, "docs") as transport:

            @settings(
                max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
            )
            @given(drawn=st.lists(st.tuples(odd_ids, odd_versions, odd_rows), min_size=1, max_size=8))
            def write(drawn: Sequence[tuple[str, int, Any]]) -> None:
                self._assert_all_settled(transport, drawn)

            write()

    def _assert_all_settled(self, transport: Transport, drawn: Sequence[tuple[str, int, Any]]) -> None:
        turn = next(_UNIQUE)
        odd = [document(f"{turn}-{n}-{id}", version, row) for n, (id, version, row) in enumerate(drawn)]
        others = [document(f"{turn}-before", 1, {"n": 1}), document(f"{turn}-\U0010ffff", 1, {"n": 1})]
        result = _write(transport, [others[0], *odd, others[1]])
        assert result.dead.keys() <= {each.id for each in odd}
        assert all(result.dead.values())


def _write_beside_another(target: Target, row: Row | bytes) -> WriteResult:
    with opened(target, "docs") as transport:
        result = _write(transport, [document("odd", 1, row), document("other", 1, {"n": 1})])
    assert target.write_version("docs", "other") == write_version(1, 1)
    return result


def _write(transport: Transport, documents: Sequence[DocumentRows]) -> WriteResult:
    result = transport.write(batch(*documents))
    assert not result.retry
    assert not result.refused
    return result
