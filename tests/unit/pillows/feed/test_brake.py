"""A first load that leaves the server time for others."""

from __future__ import annotations

import time

import pytest
from gevent.event import Event

from pillows.feed.brake import Brake, is_within
from pillows.feed.options import SourceOptions
from tests.servers.scripted import HANG, Request, chunk, head
from tests.support.clock import FakeClock
from tests.unit.pillows.feed.wire import couchdb, feed_of, page, reply, row, taking


def at(hour: int, minute: int = 0) -> float:
    return time.mktime((2026, 3, 3, hour, minute, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("hours", "moment", "within"),
    [
        ("08:00-18:00", at(8), True),
        ("08:00-18:00", at(17, 59), True),
        ("08:00-18:00", at(18), False),
        ("08:00-18:00", at(7, 59), False),
        ("22:00-06:00", at(23), True),
        ("22:00-06:00", at(5), True),
        ("22:00-06:00", at(12), False),
    ],
)
def test_g9_quiet_hours_may_cross_midnight(hours, moment, within):
    assert is_within(hours, moment) is within


@pytest.mark.parametrize("hours", ["8-18", "24:00-06:00", "08:00", "08:00-18:60"])
def test_g9_quiet_hours_are_two_times_of_day(hours):
    with pytest.raises(ValueError, match="08:00-18:00"):
        SourceOptions(connection="c", database="db", max_rate=5, quiet_hours=hours)


def test_g9_quiet_hours_need_a_rate():
    with pytest.raises(ValueError, match="max_rate"):
        SourceOptions(connection="c", database="db", quiet_hours="08:00-18:00")


@pytest.mark.parametrize(("now", "waited"), [(at(12), [9.0]), (at(20), [])])
def test_g9_outside_the_quiet_hours_nothing_is_slowed(now, waited):
    clock = FakeClock(wall=now)
    Brake(10.0, "08:00-18:00", clock).slow_down(100, 1.0, Event())
    assert clock.waited == waited


def test_g9_a_catch_up_is_no_faster_than_its_rate(scripted_server, clock):
    def changes(request: Request):
        if request.query["feed"] == "continuous":
            return [head(chunked=True) + chunk(b"\n"), HANG]
        begin = int(request.query["since"].partition("-")[0]) + 1
        rows = [row(n) for n in range(begin, min(begin + int(request.query["limit"]), 501))]
        return reply(page(rows, f"{begin + len(rows) - 1}-tok", 500 - (begin + len(rows) - 1)))

    server = couchdb(scripted_server()).on("GET", "/db/_changes", changes)
    began = clock.monotonic()
    with taking(feed_of(server.url, clock=clock, page=100, max_rate=10)) as taken:
        taken.until(lambda: len(taken.ids) == 500)
        seconds = clock.monotonic() - began
    assert seconds >= 40, "four pages of a hundred before the last"
