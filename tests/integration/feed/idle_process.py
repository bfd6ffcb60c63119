"""Reads many databases with many feeds in one process, idle: `python -m ... URL DATABASES FEEDS SECONDS`.

Prints one line of JSON: resident memory and CPU share while idle; then, after a line on its standard
input says that each database was written to, how long it took until every feed had its change.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - everything is imported patched, as in the daemon
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402
from gevent.fileobject import FileObject  # noqa: E402

from pillows.couch_options import CouchConnection  # noqa: E402
from pillows.feed_groups import FeedGroups  # noqa: E402
from pillows.source import SourceOptions  # noqa: E402


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident_mib() -> float:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main(url: str, databases: int, feeds: int, seconds: float) -> None:
    groups = FeedGroups()
    stop = Event()
    caught_up: set[int] = set()
    arrived: dict[int, float] = {}

    def follow(number: int) -> None:
        source = SourceOptions(connection="c", database=f"idle-{number % databases}", join_overlap="0s")
        feed = groups.feed(CouchConnection(url=url), source)
        for batch in feed.batches(feed.start(), None, stop):
            if batch.caught_up:
                caught_up.add(number)
            if number in caught_up and any(change.id == "written" for change in batch.changes):
                arrived.setdefault(number, time.monotonic())

    readers = [gevent.spawn(follow, number) for number in range(feeds)]
    while len(caught_up) < feeds:
        gevent.sleep(0.05)
    gevent.sleep(8)  # until everybody has joined
    before, began = cpu_seconds(), time.monotonic()
    gevent.sleep(seconds)
    share = (cpu_seconds() - before) / (time.monotonic() - began)
    print(json.dumps({"resident_mib": resident_mib(), "cpu": share}), flush=True)
    FileObject(sys.stdin).readline()
    deadline = time.monotonic() + 60
    while len(arrived) < feeds and time.monotonic() < deadline:
        gevent.sleep(0.01)
    print(json.dumps({"arrived": len(arrived), "last_at": max(arrived.values(), default=0.0)}), flush=True)
    stop.set()
    gevent.joinall(readers, timeout=60)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
