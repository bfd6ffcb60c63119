"""The suite that every append-only transport passes against its real target.

A transport's test class inherits `AppendOnlyConformance` and gives one fixture, `target`:

    class TestJsonl(AppendOnlyConformance):
        @pytest.fixture
        def target(self, tmp_path):
            return JsonlTarget(tmp_path)

Each test writes through the transport and reads with a reader of the test's own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gevent
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import TailKey
from pillows.models import WriteResult, write_version
from pillows.transports.base import AppendOnlyTransport
from tests.conformance.odd_documents import odd_ids, odd_rows, odd_versions
from tests.conformance.steps import assert_applied, assert_not_final, write_until_answered
from tests.conformance.target import KEY, at, batch, document, gone
from tests.conformance.writes import AWKWARD_IDS
from tests.support.hub_meter import HubMeter
from tests.support.sizes import size

_UNIQUE = count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The complete rows of one document at one place of an output, as a reader finds them.

    Attributes:
        id, rev, version: of the document.
        rows: without `_id` and `_rev`; empty if the document has no rows there (any more).
    """

    id: str
    rev: str
    version: int
    rows: Sequence[dict[str, Any]] = field(default_factory=list)


class AppendOnlyTarget(ABC):
    """One transport's target as a test sees it: fresh for each test.

    The suite uses the outputs `docs` and `other`.
    """

    #: A document may have any number of rows in `docs`.
    has_many: bool = True

    @abstractmethod
    def transport(self, *outputs: str, key: TailKey = KEY) -> AppendOnlyTransport:
        """Return a new transport on this target, not yet opened."""

    @abstractmethod
    def read(self, output: str) -> list[Appended]:
        """Return everything that was appended to an output; of one id in order."""

    def away(self) -> AbstractContextManager[object]:
        """While open, nobody can write to the target."""
        pytest.skip("this target is never away")


@contextmanager
def opened(target: AppendOnlyTarget, *outputs: str) -> Iterator[Any]:
    transport = target.transport(*outputs)
    try:
        transport.open()
        transport.acquire(at("0"))
        yield transport
    finally:
        transport.close()


def without_ids(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the fields that CouchDB adds."""
    return {name: value for name, value in row.items() if name not in ("_id", "_rev")}


def latest(target: AppendOnlyTarget, output: str = "docs") -> dict[str, Sequence[dict[str, Any]]]:
    """Return what a reader holds in the end, who keeps the highest version of each id."""
    found: dict[str, Appended] = {}
    for each in target.read(output):
        if each.id not in found or each.version >= found[each.id].version:
            found[each.id] = each
    return {id: each.rows for id, each in found.items() if each.rows}


class AppendOnlyConformance:
    """Inherit this, and give a fixture `target`."""

    def test_rows_are_appended_with_version_and_revision(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            written = batch(document("a", 2, {"n": 1}, rev="2-x"), document("b", 1, {"n": 2}), epoch=3)
            assert_applied(transport.write(written))
            assert_applied(transport.write(batch(document("a", 4, {"n": 3}), epoch=3)))
        found = target.read("docs")
        assert sorted((each.id, each.version, *each.rows) for each in found if each.id == "b") == [
            ("b", write_version(3, 1), {"n": 2})
        ]
        assert [(each.version, *each.rows) for each in found if each.id == "a"] == [
            (write_version(3, 2), {"n": 1}),
            (write_version(3, 4), {"n": 3}),
        ]
        assert found[[each.id for each in found].index("a")].rev == "2-x"

    def test_every_json_type_of_raw_and_mapping_rows_arrives(self, target: AppendOnlyTarget) -> None:
        value = {
            "text": "naïve 名前 🦉 \u2028 \\ \" ' \n \t \x7f \0",
            "number": -12.5,
            "large": 2**53,
            "nothing": None,
            "nested": {"list": [{"a": 1}, {"a": [2, {"b": True}]}], "": {}},
        }
        with opened(target, "docs") as transport:
            raw = msgspec.json.encode({"_id": "raw", "_rev": "1-a"} | value)
            assert_applied(transport.write(batch(document("raw", 1, raw), document("mapping", 1, value))))
        assert latest(target) == {"raw": [value], "mapping": [value]}

    def test_a_document_of_several_rows_is_whole(self, target: AppendOnlyTarget) -> None:
        rows = [{"n": 1}, {"n": 2}, {"n": 3}]
        with opened(target, "docs") as transport:
            result = transport.write(batch(document("a", 1, *rows), document("b", 1, {"n": 4})))
        if target.has_many:
            assert latest(target) == {"a": rows, "b": [{"n": 4}]}
        else:
            assert set(result.dead) == {"a"}
            assert latest(target) == {"b": [{"n": 4}]}

    @pytest.mark.parametrize("first_pass", [False, True])
    def test_a_document_without_rows_says_so(self, target: AppendOnlyTarget, first_pass: bool) -> None:
        """Even a first pass writes that, since the document may have had rows earlier in the same pass."""
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1}), first_pass=first_pass))
            assert_applied(transport.write(batch(gone("a", 2), first_pass=first_pass)))
        assert target.read("docs")[-1] == Appended(id="a", rev=gone("a", 2).rev, version=write_version(1, 2))
        assert latest(target) == {}

    def test_moving_between_outputs_leaves_nothing_behind(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs", "other") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            moved = document("a", 2, {"n": 2}, output="other", elsewhere=[{"n": 3}])
            assert_applied(transport.write(batch(moved)))
        assert latest(target) == {}
        assert latest(target, "other") == {"a": [{"n": 2}]}

    def test_awkward_ids_arrive_as_they_are(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            assert_applied(transport.write(batch(*(document(id, 1, {"id": id}) for id in AWKWARD_IDS))))
        assert latest(target) == {id: [{"id": id}] for id in AWKWARD_IDS}

    def test_of_several_states_in_a_batch_the_newest_is_appended(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 2, {"n": 2}), document("a", 1, {"n": 1})))
        assert [(each.version, *each.rows) for each in target.read("docs")] == [
            (write_version(1, 2), {"n": 2})
        ]

    def test_an_empty_batch_appends_nothing(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            assert transport.write(batch()) == WriteResult()
        assert target.read("docs") == []

    def test_a_row_without_a_json_form_is_dead_and_the_others_arrive(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            bad = document("bad", 1, {"n": object()})
            result = transport.write(batch(document("a", 1, {"n": 1}), bad, document("b", 1, {"n": 1})))
        assert set(result.dead) == {"bad"}
        assert "JSON" in result.dead["bad"]
        assert set(latest(target)) == {"a", "b"}

    def test_a_document_drawn_at_random_never_stops_the_others(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:

            @settings(
                max_examples=size(ci=25, proof=300),
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            )
            @given(drawn=st.lists(st.tuples(odd_ids, odd_versions, odd_rows), min_size=1, max_size=8))
            def write(drawn: Sequence[tuple[str, int, Any]]) -> None:
                turn = next(_UNIQUE)
                odd = [
                    document(f"{turn}-{n}-{id}", version, row) for n, (id, version, row) in enumerate(drawn)
                ]
                result = transport.write(batch(*odd, document(f"{turn}-other", 1, {"n": 1})))
                assert not result.retry
                assert result.dead.keys() <= {each.id for each in odd}
                assert all(result.dead.values())

            write()

    def test_a_repeated_batch_converges(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            written = batch(document("a", 1, {"n": 1}), gone("b", 2))
            for _ in range(2):
                assert_applied(transport.write(written))
            transport.write(batch(document("b", 3, {"n": 3})))
            assert_applied(transport.write(written))
        assert latest(target) == {"a": [{"n": 1}], "b": [{"n": 3}]}

    def test_the_end_of_a_pass_removes_nothing(self, target: AppendOnlyTarget) -> None:
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1})))
            assert transport.finish_pass(2) == 0
        assert latest(target) == {"a": [{"n": 1}]}

    def test_a_target_that_is_away_is_retryable_and_converges(self, target: AppendOnlyTarget) -> None:
        written = batch(document("a", 1, {"n": 1}), document("b", 1, {"n": 2}))
        with opened(target, "docs") as transport:
            transport.write(batch(document("before", 1, {"n": 0})))
            with target.away():
                assert_not_final(transport, written)
            assert_applied(write_until_answered(transport, written))
        assert latest(target) == {"before": [{"n": 0}], "a": [{"n": 1}], "b": [{"n": 2}]}

    def test_a_killed_write_leaves_the_transport_usable(self, target: AppendOnlyTarget) -> None:
        for delay_seconds in (0.0, 0.002, 0.01, 0.05):
            documents = [document(f"{delay_seconds}-{n}", 1, {"n": n}) for n in range(300)]
            with opened(target, "docs") as transport:
                writer = gevent.spawn(transport.write, batch(*documents))
                gevent.sleep(delay_seconds)
                writer.kill(timeout=60)
                assert_applied(write_until_answered(transport, batch(*documents)))
            found = latest(target)
            assert all(found[each.id] == list(each.rows["docs"]) for each in documents)

    def test_the_hub_goes_on_during_a_write(self, target: AppendOnlyTarget) -> None:
        many = batch(*(document(f"d{n}", 1, {"n": n, "t": "x" * 300}) for n in range(2000)))
        with opened(target, "docs") as transport, HubMeter(time.thread_time).measure() as meter:
            assert_applied(transport.write(many))
        assert meter.longest_seconds < size(ci=0.5, proof=0.1)

    def test_it_may_be_closed_twice_and_without_open(self, target: AppendOnlyTarget) -> None:
        transport = target.transport("docs")
        transport.close()
        transport.close()

    def test_the_outputs_digest_is_stable(self, target: AppendOnlyTarget) -> None:
        assert target.transport("docs").outputs_digest() == target.transport("docs").outputs_digest()
