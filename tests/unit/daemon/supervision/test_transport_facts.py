"""Each transport's facts are its own."""

from __future__ import annotations

from checkpoints import TailKey
from daemon.supervision.transport_facts import TransportFacts, TransportStatus
from tests.support.clock import FakeClock

KEY = TailKey("cases", "couch/cases")


def write(facts: TransportFacts, transport: str, *, applied: int = 0, dead: int = 0) -> None:
    documents = {"applied": applied, "equal": 0, "stale": 0, "dead": dead}
    facts.write(KEY, transport=transport, documents=documents, size_bytes=10 * applied, seconds=0.5)


def test_what_is_delivered_is_counted_with_its_rate_and_time() -> None:
    clock = FakeClock(auto=False, wall=1000.0)
    facts = TransportFacts(clock)
    facts.in_flight(KEY, transport="warehouse", batches=2)
    clock.advance(10)
    write(facts, "warehouse", applied=90, dead=10)
    assert facts.of(KEY, ["warehouse", "search"]) == [
        TransportStatus(
            transport="warehouse",
            documents=100,
            dead=10,
            size_bytes=900,
            documents_per_second=10,
            in_flight=2,
            delivered_at=1010.0,
            write_seconds=0.5,
        ),
        TransportStatus(transport="search"),
    ]


def test_the_last_error_is_that_of_the_transport_that_failed() -> None:
    facts = TransportFacts(FakeClock(auto=False, wall=1000.0))
    for where in ("source", "checkpoint", "search"):
        facts.retry(KEY, where=where, error=f"{where} away", attempt=1, delay_seconds=1.0)
    warehouse, search = facts.of(KEY, ["warehouse", "search"])
    assert (warehouse.error, warehouse.error_at) == ("", None)
    assert (search.error, search.error_at) == ("search away", 1000.0)


def test_a_removed_tail_leaves_nothing() -> None:
    facts = TransportFacts(FakeClock(auto=False))
    write(facts, "warehouse", applied=1)
    facts.removed(KEY)
    assert facts._counts == {}
