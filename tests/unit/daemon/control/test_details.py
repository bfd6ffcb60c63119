"""All that is known of a tail in one mapping."""

from __future__ import annotations

import json

import msgspec
from msgspec.structs import asdict

from checkpoints import TailKey
from daemon.control.details import Details
from daemon.supervision.state_history import StateHistory
from daemon.supervision.transport_facts import TransportFacts
from pillows.runtime.status import State, TailStatus
from tests.support.clock import FakeClock

A = TailKey("a", "couch/x")


def test_a_status_comes_with_its_past_and_its_transports():
    clock = FakeClock(auto=False)
    history, transports = StateHistory(clock), TransportFacts(clock)
    history.state(A, state="live", reason="")
    transports.write(A, transport="warehouse", documents={"applied": 3}, size_bytes=9, seconds=0.5)
    details = Details(
        asdict, history, transports, lambda key: ["warehouse", "search"] if key == A else [], lambda _: []
    )
    status = TailStatus(pillow="a", source="couch/x", state=State.LIVE)
    shown = msgspec.json.decode(msgspec.json.encode(details.of(status)))
    assert json.loads(json.dumps(details.to_json(status))) == shown
    assert shown["state"] == "live"
    assert shown["history"] == [{"at": clock.wall(), "state": "live", "reason": ""}]
    assert [each["transport"] for each in shown["transports"]] == ["warehouse", "search"]
    assert (shown["transports"][0]["documents"], shown["transports"][1]["delivered_at"]) == (3, None)
