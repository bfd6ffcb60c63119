"""A worker's messages stay whole, whoever sends them."""

from __future__ import annotations

import gevent
from gevent import socket

from pillows.parallel import protocol, worker
from pillows.parallel.worker import Channel
from tests.support.waiting import let_others_run


def test_a_sign_of_life_does_not_come_within_a_large_message(monkeypatch):
    """A result waits in the middle for a coordinator that is slow to read."""
    monkeypatch.setattr(worker, "ALIVE_SECONDS", 0.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        large = protocol.Done(1, protocol.to_payload(b"x" * 5_000_000))
        sending = gevent.spawn(channel.send, large)
        let_others_run(5)
        assert not sending.dead
        ticking = gevent.spawn(channel.tick)
        waiting = gevent.spawn(channel.send, protocol.Take(2))
        let_others_run(5)
        found = protocol.receive_in_coordinator(ours)
        assert isinstance(found, protocol.Done)
        assert len(bytes(found.payload)) > 5_000_000
        for each in (sending.join, ticking.join, waiting.join):
            each(timeout=10)
        assert isinstance(protocol.receive_in_coordinator(ours), protocol.Take)


def test_a_worker_that_works_shows_that_it_lives(monkeypatch):
    monkeypatch.setattr(worker, "ALIVE_SECONDS", 0.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(theirs).tick()
        assert isinstance(protocol.receive_in_coordinator(ours), protocol.Alive)
