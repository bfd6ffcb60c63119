"""The latest events are few, and hold nothing of a document."""

from __future__ import annotations

import msgspec

from checkpoints import TailKey
from daemon.streams.notable_events import KEPT, NotableEvents
from pillows.observer import Rewind
from tests.support.clock import FakeClock

A, B = TailKey("a", "couch/x"), TailKey("b", "couch/x")


def test_each_new_state_is_an_event_and_a_new_reason_is_none():
    events = NotableEvents(FakeClock(auto=False))
    events.state(A, state="starting", reason="")
    events.state(A, state="backing-off", reason="refused")
    events.state(A, state="backing-off", reason="refused again")
    events.state(B, state="live", reason="")
    events.state(A, state="live", reason="")
    assert [(each.pillow, each.text, each.reason) for each in events.since(0)] == [
        ("a", "backing-off", "refused"),
        ("b", "live", ""),
        ("a", "live", ""),
    ]
    assert [each.number for each in events.since(2)] == [3]
    assert events.since(events.number) == ()


def test_other_events_come_once_a_minute_with_their_number():
    clock = FakeClock(auto=False)
    events = NotableEvents(clock)
    for _ in range(10_000):
        events.dead_letter(A, transport="warehouse", id="canary", stage="transport", error="canary")
    events.warning(A, event="feed.slow", details={"id": "canary"})
    clock.advance(61)
    events.dead_letter(A, transport="", id="canary", stage="filter", error="canary")
    found = events.since(0)
    assert [(each.kind, each.text, each.count) for each in found] == [
        ("dead-letter", "warehouse", 1),
        ("feed.slow", "", 1),
        ("dead-letter", "filter", 10_000),
    ]
    assert b"canary" not in msgspec.json.encode(found)


def test_only_the_last_are_kept():
    events = NotableEvents(FakeClock(auto=False))
    for number in range(KEPT):
        events.state(A, state="live" if number % 2 else "failed", reason="")
    events.rewind(B, kind=Rewind.REPEATED, reason="restored")
    events.notice(B, event="pass.completed", details={})
    kept = events.since(0)
    assert (len(kept), kept[0].number, kept[-1].number) == (KEPT, 3, KEPT + 2)


def test_a_tail_that_is_gone_is_forgotten():
    events = NotableEvents(FakeClock(auto=False))
    events.state(A, state="live", reason="")
    events.warning(A, event="feed.slow", details={})
    events.removed(A)
    events.state(A, state="live", reason="")
    events.warning(A, event="feed.slow", details={})
    assert events.number == 4
