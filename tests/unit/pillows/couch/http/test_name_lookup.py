"""Names whose servers do not answer."""

from __future__ import annotations

import gevent
import pytest
from gevent import monkey

from pillows.couch.http.name_lookup import NameLookup

allocate_lock = monkey.get_original("_thread", "allocate_lock")


def test_c2_dead_names_hold_up_no_other_name_and_no_other_work():
    silence = allocate_lock()  # a thread's own: the hub goes on while one waits for it
    silence.acquire()

    def look_up(host: str, *_: object) -> str:
        if host.startswith("dead"):
            silence.acquire(timeout=60)
            silence.release()
            raise OSError("no answer")
        return f"address of {host}"

    resolver = NameLookup(lookup=look_up)
    dead = [gevent.spawn(resolver.getaddrinfo, f"dead-{n % 12}", 80) for n in range(60)]
    gevent.sleep(0)
    with gevent.Timeout(30):
        assert resolver.getaddrinfo("healthy", 80) == "address of healthy"
        assert gevent.get_hub().threadpool.apply(lambda: 5) == 5
    assert not any(each.ready() for each in dead)
    assert resolver.pool.size <= 14, "one thread for each name"
    silence.release()
    gevent.joinall(dead)
    assert not resolver._running
    with pytest.raises(OSError, match="no answer"):
        resolver.getaddrinfo("dead", 80)
