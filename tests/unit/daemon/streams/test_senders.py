"""The streams: their content, form and end."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Iterator
from typing import Any, cast

import gevent
from gevent.event import Event
from msgspec.structs import asdict

from checkpoints import TailKey
from daemon.control.snapshot import Snapshot, Snapshots
from daemon.streams.notable_events import NotableEvents
from daemon.streams.senders import EventSource, format_message, stream_tap
from daemon.streams.taps import Stage, Taps
from pillows.models import Change
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock

A = TailKey("a", "couch/x")


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events = NotableEvents(self.clock)
        self.states = {"a": State.LIVE, "b": State.LIVE}
        self.asked = 0
        self.source = EventSource(self._snapshot, asdict, self.events, self.clock)

    def _snapshot(self) -> Snapshot:
        self.asked += 1
        statuses = [
            TailStatus(pillow=name, source="couch/x", state=state) for name, state in self.states.items()
        ]
        return Snapshot(at=self.clock.monotonic(), keys=(), entered=0, statuses=statuses)


def parse(message: bytes) -> tuple[str, str, Any]:
    fields = dict(line.split(": ", 1) for line in message.decode().strip().split("\n"))
    return (
        fields.get("event", ""),
        fields.get("id", ""),
        json.loads(fields["data"]) if "data" in fields else None,
    )


def until(stream: Iterator[bytes], event: str) -> tuple[str, Any]:
    for message in stream:
        kind, id, data = parse(message) if not message.startswith(b":") else ("comment", "", None)
        if kind == event:
            return id, data
    raise AssertionError("the stream ended")


def test_the_first_status_is_complete_and_the_next_has_what_changed():
    world = World()
    stream = world.source.stream()
    assert next(stream) == b"retry: 1000\n\n"
    _, first = until(stream, "status")
    assert (first["complete"], [each["pillow"] for each in first["pillows"]]) == (True, ["a", "b"])
    assert first["daemon"].keys() == {"version", "up_seconds", "at"}
    world.states["b"] = State.FAILED
    _, second = until(stream, "status")
    assert (second["complete"], [each["pillow"] for each in second["pillows"]]) == (False, ["b"])
    del world.states["a"]
    _, third = until(stream, "status")
    assert (third["pillows"], third["gone"]) == ([], ["a@couch/x"])


def test_a_reader_that_connects_again_is_told_what_it_missed():
    world = World()
    id, _ = until(world.source.stream(), "status")
    world.states["b"] = State.PAUSED
    world.events.state(A, state="failed", reason="why")
    world.clock.wait(Event(), 1)
    again = world.source.stream(id)
    _, status = until(again, "status")
    assert (status["complete"], [each["pillow"] for each in status["pillows"]]) == (False, ["b"])
    last, event = until(again, "event")
    assert (event["number"], event["kind"], event["text"], event["reason"]) == (1, "state", "failed", "why")
    _, status = until(world.source.stream(last), "status")
    assert status["pillows"] == []


def test_ids_of_another_run_or_of_nobody_begin_anew():
    world = World()
    id, _ = until(world.source.stream(), "status")
    for wrong in ("", "x", id.replace(id[:8], "00000000"), f"{id}-1", f"{id[:8]}-٣-0", "a" * 9000):
        assert until(world.source.stream(wrong), "status")[1]["complete"], wrong


def test_a_quiet_stream_says_something_and_ends_after_ten_minutes():
    world = World()
    began = world.clock.monotonic()
    at: dict[bytes, list[float]] = {b"event: status": [], b": still": []}
    for message in world.source.stream():
        for kind, times in at.items():
            if kind in message:
                times.append(world.clock.monotonic() - began)
    assert world.clock.monotonic() - began == 600
    assert max(b - a for a, b in zip(at[b"event: status"], at[b"event: status"][1:], strict=False)) <= 5
    assert len(at[b": still"]) == 39


def test_all_readers_share_the_comparison():
    world = World()
    streams = [world.source.stream() for _ in range(16)]
    for stream in streams:
        until(stream, "status")
    assert world.source._changes.since(None).version == 1


def test_all_readers_send_at_the_same_moment_and_the_same_bytes():
    """It does not matter when each reader connected."""
    world = World()
    streams = []
    for _ in range(3):
        streams.append(world.source.stream())
        until(streams[-1], "status")
        world.clock.advance(0.3)
    seen = []
    for second in range(2):
        world.states["a"] = State.PAUSED if second else State.FAILED
        woken = [gevent.spawn(until, stream, "status") for stream in streams]
        messages = [each.get() for each in woken]
        assert world.clock.monotonic() % 1 == 0
        assert messages == messages[:1] * 3
        seen.append(messages[0][0])
    assert len(set(seen)) == 2


def test_a_new_reader_gets_the_latest_events_only():
    world = World()
    for number in range(100):
        world.events.state(A, state="live" if number % 2 else "failed", reason="")
    assert until(world.source.stream(), "event")[1]["number"] == 81


def test_a_tap_sends_samples_and_closes_with_its_stream():
    clock = FakeClock()
    taps = Taps(clock)
    stream = stream_tap(taps, A, Stage.CHANGE, rate=10, values=False, clock=clock)
    next(stream)
    assert next(stream) == b": still here\n\n", "nothing passed for 15 s"
    waiting = gevent.spawn(next, stream)
    gevent.sleep(0)
    taps.arrived(A, changes=[Change(id="x\ny", revs=("1-x",), leaf_version=1)])
    event, _, data = parse(waiting.get())
    assert (event, data["id"], data["passed"]) == ("change", "x\ny", 1)
    cast("Generator[bytes]", stream).close()
    assert taps._taps == {}


def test_a_message_is_one_line_of_data():
    assert format_message("status", b"{}", id="x-1-2") == b"id: x-1-2\nevent: status\ndata: {}\n\n"
    assert format_message("rows", b"{}") == b"event: rows\ndata: {}\n\n"


class UnevenClock(FakeClock):
    """A clock whose waits end a little late, each by another time."""

    def __init__(self) -> None:
        super().__init__()
        self._late_seconds = itertools.cycle([0.003, 0.001, 0.002, 0.0])

    def wait(self, event: Event, seconds: float) -> bool:
        return super().wait(event, seconds + next(self._late_seconds))


def test_each_second_has_its_status_although_waits_end_a_little_late():
    clock = UnevenClock()
    changes = itertools.count()

    def make_statuses() -> list[TailStatus]:
        return [TailStatus(pillow="a", source="couch/x", state=State.LIVE, changes=next(changes))]

    snapshots = Snapshots(make_statuses, lambda: [A], clock)
    stream = EventSource(snapshots.get, asdict, NotableEvents(clock), clock).stream()
    until(stream, "status")
    until(stream, "status")
    began = clock.monotonic()
    for _ in range(20):
        until(stream, "status")
    assert clock.monotonic() - began < 21
