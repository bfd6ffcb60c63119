"""Tails in greenlets, ended and closed with the test."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from pillows.runtime.tail import Tail
from tests.unit.pipeline.parts import KEY


class Running:
    """A tail in a greenlet."""

    def __init__(self, plan_):
        self.tail = Tail(plan_)
        self.plan = plan_
        self.stop = Event()
        self.greenlet = gevent.spawn(self.tail.run, self.stop)

    def until(self, condition, seconds=60.0):
        with gevent.Timeout(seconds):
            while not condition():
                if self.greenlet.dead:
                    self.greenlet.get()
                gevent.sleep(0.005)

    def finish(self):
        self.stop.set()
        self.greenlet.get(timeout=60)
        return self.plan.store.get(KEY)


@pytest.fixture
def running():
    opened = []

    def start(plan_):
        opened.append(Running(plan_))
        return opened[-1]

    yield start
    for each in opened:
        each.greenlet.kill()
    for store in {
        id(part): part for each in opened for part in (each.plan.store, each.plan.letters)
    }.values():
        store.close()
