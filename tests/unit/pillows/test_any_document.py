"""A document or row, drawn at random with everything that wire and JSON allow, never stops its pillow."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import Seq
from pillows.feed.parsing.changes_parser import parse_change
from pillows.models import MAX_LEAF_VERSION, ChangeBatch
from pillows.pillow import Pillow
from pillows.runtime.status import State
from pillows.stages.declarative import ChildRows, DeclarativeStep
from pillows.stages.filters import Filter, JmespathFilter, KeepAll, PythonFilter
from pillows.stages.transforms import Chain, ChunkedTransform, PassThrough, PythonTransform, Transform
from pillows.transports.base import Transport
from pillows.transports.null import NullConnection, NullOutput, NullTransport
from tests.support.list_feed import ListFeed, change
from tests.support.memory_transport import KEY, MemoryTransport
from tests.support.recorder import Recorder
from tests.support.sizes import size
from tests.support.tails import RunningTail, plan

OUT = ("cases",)

FILTERS: list[Callable[[], Filter]] = [
    KeepAll,
    lambda: JmespathFilter("doc.n || doc"),
    lambda: JmespathFilter("length(id) > `0`"),
    lambda: PythonFilter(lambda doc: doc["n"] is not doc),
    lambda: PythonFilter(lambda one: one.rev, needs_document=False),
]
TRANSFORMS: list[Callable[[], Transform]] = [
    lambda: PassThrough(OUT),
    lambda: PythonTransform(lambda doc: doc, OUT),
    lambda: Chain(
        [
            DeclarativeStep(
                pick=["_id", "n", "deep.er"],
                rename={"n": "m"},
                compute={"c": "sort(keys(@))", "d": "n.m"},
                types={"m": "number", "c": "text"},
            )
        ],
        OUT,
    ),
    lambda: Chain([DeclarativeStep(rows={"cases": ChildRows(each="n", fields={"x": "@"})}), dict], OUT),
    lambda: ChunkedTransform(lambda docs: docs, OUT, chunk=3),
]
TARGETS: list[Callable[[], Transport]] = [
    MemoryTransport,
    lambda: NullTransport("null", KEY, NullConnection(), {"cases": NullOutput()}),
]


def _deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


#: Values as bytes of the wire, valid JSON or not.
WIRE = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    ).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.integers(0, 20_000).map(_deep),
    st.integers(0, 2**20).map(lambda length: b'"' + b"x" * length + b'"'),
    st.sampled_from(
        [b"1e400", b"NaN", b"-0", b'"\\ud800"', b'"\xff"', b"9" * 5000, b"1.0e-999", b'"\\u0000"']
    ),
)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
NUMBERS = st.one_of(
    st.integers(1, 9), st.sampled_from([2**31, 2**40 - 1, 2**40, 2**60 - 1, 2**63, 2**64, 10**30])
)


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """A row of `_changes` with a document that is anything."""
    id = draw(IDS)
    revs = [f"{draw(NUMBERS)}-{leaf}" for leaf in "ab"[: draw(st.integers(1, 2))]]
    head: dict[str, Any] = {"seq": "5-x", "id": id, "changes": [{"rev": rev} for rev in revs]}
    if draw(st.booleans()) and draw(st.booleans()):
        head["deleted"] = True
    start = json.dumps({"_id": id, "_rev": revs[0]})[:-1].encode()
    doc = start + b',"n":' + draw(WIRE) + b',"deep":{"er":' + draw(WIRE) + b"}}"
    return json.dumps(head)[:-1].encode() + b',"doc":' + doc + b"}"


def carry(
    folder: Path,
    wire: Sequence[bytes],
    filter: Callable[[], Filter],
    transform: Callable[[], Transform],
    target: Callable[[], Transport],
) -> tuple[set[str], set[str]]:
    """Run a tail over rows between two good ones until it is live. Return all ids, and those that failed."""
    changes = [change("good-a", n=[{"m": 1}]), *map(parse_change, wire), change("good-z", n=[{"m": 2}])]
    seen = Recorder()
    feed = ListFeed([ChangeBatch(changes=changes, seq=Seq.of("9-x"), caught_up=True)])
    feed.sums = {each.id: each.leaf_version for each in changes}
    pillow = Pillow(name="cases", outputs=OUT, filter=filter(), transform=transform())
    run = RunningTail(plan(folder, feed, target(), pillow=pillow, observer=seen))
    try:
        run.until(lambda: run.tail.state is State.LIVE, seconds=30)
        saved = run.finish()
        assert saved is not None
        assert saved.seq == Seq.of("9-x")
        assert saved.pass_done
    finally:
        run.kill()
        run.close_stores()
    return {each.id for each in changes}, {each["id"] for each in seen.of("dead_letter")}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("transform", TRANSFORMS)
@settings(max_examples=size(ci=15, proof=500))
@given(wire=st.lists(rows(), min_size=1, max_size=4), filter=st.sampled_from(FILTERS))
def test_b_any_document_passes_or_is_a_dead_letter(
    target: Callable[[], Transport],
    transform: Callable[[], Transform],
    wire: list[bytes],
    filter: Callable[[], Filter],
) -> None:
    with TemporaryDirectory() as folder:
        ids, failed = carry(Path(folder), wire, filter, transform, target)
    assert failed <= ids


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("number", [2**40, 2**60 - 1, 2**63, 10**30])
def test_b4_a_revision_number_beyond_a_write_version_is_a_dead_letter(
    tmp_path: Path, number: int, deleted: bool
) -> None:
    head = {"seq": "5-x", "id": "big", "changes": [{"rev": f"{number}-a"}], "deleted": deleted}
    target = MemoryTransport()
    wire = [json.dumps(head | {"doc": {"_id": "big", "_rev": f"{number}-a"}}).encode()]
    ids, failed = carry(tmp_path, wire, KeepAll, lambda: PassThrough(OUT), lambda: target)
    assert failed == {"big"}
    assert target.target["rows"].keys() == ids - {"big"}
    assert target.target["epoch"] == 1


def test_b4_the_greatest_revision_number_is_written(tmp_path: Path) -> None:
    head = {"seq": "5-x", "id": "big", "changes": [{"rev": f"{MAX_LEAF_VERSION}-a"}]}
    wire = [json.dumps(head | {"doc": {"_id": "big", "_rev": f"{MAX_LEAF_VERSION}-a"}}).encode()]
    _, failed = carry(tmp_path, wire, KeepAll, lambda: PassThrough(OUT), MemoryTransport)
    assert failed == set()


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_b1_a_deep_document_is_at_most_one_dead_letter_and_the_pass_ends(
    tmp_path: Path, filter: Callable[[], Filter], transform: Callable[[], Transform]
) -> None:
    doc = b'{"_id":"deep","_rev":"1-a","n":' + _deep(1500) + b"}"
    wire = [b'{"seq":"5-x","id":"deep","changes":[{"rev":"1-a"}],"doc":' + doc + b"}"]
    _, failed = carry(tmp_path, wire, filter, transform, MemoryTransport)
    assert failed <= {"deep", "good-a", "good-z"}
