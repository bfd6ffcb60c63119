"""A field that does not fit the mapping of a real server: it stands aside, and the document arrives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pillows.transports.common.search.misfits import UNINDEXED, put_back
from pillows.transports.common.search.transport import SearchTransport
from tests.conformance.steps import assert_applied
from tests.conformance.target import batch, document, gone
from tests.integration.transports.search_index import Node, running
from tests.support.sizes import size

_NUMBERS = count()

_names = st.sampled_from(["a", "b", "a.b", "b.a", "", " ", "a..b", "c", "null", "ü", "_version", UNINDEXED])
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["2026-01-01", "x" * 40_000])
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3)
)
_documents = st.lists(st.dictionaries(_names, _values, max_size=4), min_size=1, max_size=8)


@pytest.fixture
def mirrored(each_node: Node) -> Mapping[str, Any]:
    """An output as `pillowd mirror` configures it."""
    support = each_node.kind.mirror
    assert support is not None
    return {name: value for name, value in support.make_output("x").items() if name != "index"}


@pytest.fixture
def one(each_node: Node, mirrored: Mapping[str, Any]) -> Iterator[SearchTransport]:
    with running(each_node, docs=mirrored) as opened:
        yield opened


def test_f2_an_object_where_a_scalar_was_and_the_reverse_stand_aside(
    each_node: Node, one: SearchTransport
) -> None:
    """`b` is text first, `c` an object, and each comes as the other; `n` is found, whatever they are."""
    first = document("first", 1, {"n": 1, "b": "text", "c": {"x": 1}})
    others = [
        document("object", 1, {"n": 2, "b": {"y": 1}, "c": {"x": 2}}),
        document("scalar", 1, {"n": 3, "b": "more", "c": 5}),
        document("both", 1, {"n": 4, "b": {"y": 2}, "c": "five"}),
    ]
    assert_applied(one.write(batch(first)))
    assert_applied(one.write(batch(*others)))
    kept = each_node.read("docs")
    assert {id: put_back(source) for id, source in kept.items()} == {
        each.id: each.rows["docs"][0] for each in (first, *others)
    }
    assert kept["scalar"] == {"n": 3, "b": "more", UNINDEXED: {"c": 5}}
    assert kept["both"][UNINDEXED]["c"] == "five"
    found = each_node.ask("GET", f"{each_node.alias('docs')}/_search?q=n:%3E1")["hits"]["hits"]
    assert {hit["_id"] for hit in found} == {"object", "scalar", "both"}
    found = each_node.ask("GET", f"{each_node.alias('docs')}/_search?q=b:more")["hits"]["hits"]
    assert [hit["_id"] for hit in found] == ["scalar"], "a field that fits is searched as before"
    assert_applied(one.write(batch(gone("both", 2), document("scalar", 2, {"c": {"x": 7}}))))
    kept = each_node.read("docs")
    assert kept["scalar"] == {"c": {"x": 7}}, "a version that fits needs nothing aside"
    assert "both" not in kept
    older = one.write(batch(document("scalar", 1, {"c": 5}))).refused
    assert list(older) == ["scalar"], "a document that does not fit is guarded by its version, too"


@settings(
    max_examples=size(ci=15, proof=300),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(documents=_documents)
def test_f2_any_document_arrives_whole(
    each_node: Node, one: SearchTransport, documents: list[dict[str, Any]]
) -> None:
    """All examples go into one index, whose mapping the earlier ones have made."""
    sent = {f"d{next(_NUMBERS)}": each for each in documents}
    written = [document(id, 1, row) for id, row in sent.items()]
    assert_applied(one.write(batch(*written)))
    assert one.find_altered("docs", written) == set(), "`verify --content` finds all where they belong"
    others = [document(id, 1, {**row, "other": 1}) for id, row in sent.items()]
    assert one.find_altered("docs", others) == set(sent)
    told = each_node.ask("POST", f"{each_node.alias('docs')}/_mget", {"ids": list(sent)})
    for hit in told["docs"]:
        row, source = sent[hit["_id"]], hit["_source"]
        assert source == row or (put_back(source) == row and set(source[UNINDEXED]) <= set(row))


def test_f2_without_the_option_a_field_that_does_not_fit_is_a_dead_letter(
    each_node: Node, mirrored: Mapping[str, Any]
) -> None:
    with running(each_node, docs={**mirrored, "on_misfit": "dead_letter"}) as one:
        assert_applied(one.write(batch(document("first", 1, {"c": {"x": 1}}))))
        result = one.write(batch(document("scalar", 1, {"c": 5}), document("fits", 1, {"c": {"x": 2}})))
    assert set(result.dead) == {"scalar"}
    assert set(each_node.read("docs")) == {"first", "fits"}
    with running(each_node, docs=mirrored) as one:
        assert_applied(one.write(batch(document("scalar", 1, {"c": 5}))))
    assert each_node.read("docs")["scalar"] == {UNINDEXED: {"c": 5}}, "the same index can be given the option"
