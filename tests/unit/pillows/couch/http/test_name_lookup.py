"""Names whose servers do not answer."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent import monkey

from pillows.couch.http.name_lookup import NameLookup

sleep = monkey.get_original("time", "sleep")


def look_up(host: str, *_: object) -> str:
    if host.startswith("dead"):
        sleep(1.0)  # the thread, not the hub
        raise OSError("no answer")
    return f"address of {host}"


def test_c2_dead_names_hold_up_no_other_name_and_no_other_work():
    resolver = NameLookup(lookup=look_up)
    dead = [gevent.spawn(resolver.getaddrinfo, f"dead-{n % 12}", 80) for n in range(60)]
    gevent.sleep(0.05)
    began = time.monotonic()
    assert resolver.getaddrinfo("healthy", 80) == "address of healthy"
    assert gevent.get_hub().threadpool.apply(lambda: 5) == 5
    assert time.monotonic() - began < 0.8
    assert resolver.pool.size <= 14, "one thread for each name"
    gevent.joinall(dead)
    assert not resolver._running
    with pytest.raises(OSError, match="no answer"):
        resolver.getaddrinfo("dead", 80)
