"""How long a write, once CouchDB has acknowledged it, takes to become visible in PostgreSQL.

A process of its own, so that whatever else a measurement starts does not delay its clock. It prints one line
of JSON: `{"writes": ..., "p50_ms": ..., "p99_ms": ...}`. Without a table it takes the time until the change
arrives at a raw reader of the continuous feed, which may be before the acknowledgement.

Usage: python -m bench.latency DATABASE_URL [DSN TABLE] RATE SECONDS
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from tests.servers.source import source

#: Seconds between two looks at the table: half of it is added to each latency, on average.
LOOK_SECONDS = 0.001
#: A write that has not become visible after so long ends the measurement.
LONGEST_SECONDS = 60.0


class Writes:
    """Writes documents at a rate, and knows which are not visible yet.

    Args:
        database_url: the database, with credentials if it needs any.
        rate: writes per second.
        seconds: how long to write.

    Attributes:
        pending: id -> monotonic seconds of the acknowledgement.
        refused: why it has stopped to write; "" if it has not.
    """

    def __init__(self, database_url: str, rate: float, seconds: float) -> None:
        self.pending: dict[str, float] = {}
        self.refused = ""
        self._database = source(database_url)
        self._rate = rate
        self._seconds = seconds
        self._writer = threading.Thread(target=self._write)

    def start(self) -> None:
        """Begin to write."""
        self._writer.start()

    @property
    def has_ended(self) -> bool:
        """Whether every document was written."""
        return not self._writer.is_alive()

    def _write(self) -> None:
        parts = urlsplit(self._database.url)
        headers = {"Content-Type": "application/json", **self._database.headers}
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        prefix = uuid4().hex
        began = time.monotonic()
        for number in count():
            wait_seconds = began + number / self._rate - time.monotonic()
            if wait_seconds > 0:
                time.sleep(wait_seconds)
            if time.monotonic() >= began + self._seconds:
                break
            id = f"{prefix}-{number:09}"
            connection.request("PUT", f"{parts.path}/{id}", json.dumps({"n": number}), headers)
            response = connection.getresponse()
            response.read()
            self.pending[id] = time.monotonic()
            if response.status not in {201, 202}:
                self.refused = f"PUT {id}: {response.status}"
                break
        connection.close()


#: Returns which of these documents can be seen, and since when (monotonic seconds).
Look = Callable[[Sequence[str]], Iterable[tuple[str, float]]]


@contextmanager
def look_at_table(dsn: str, table: str) -> Iterator[Look]:
    """Yield the function that looks into a table: a document is visible once a look has found it."""
    with psycopg.connect(dsn, autocommit=True) as connection:

        def look(wanted: Sequence[str]) -> Iterable[tuple[str, float]]:
            query = f"select _id from {table} where _id = any(%s)"
            found = connection.execute(query, (list(wanted),)).fetchall()
            now = time.monotonic()
            return [(id, now) for (id,) in found]

        yield look


@contextmanager
def look_at_feed(database_url: str) -> Iterator[Look]:
    """Yield the function that tells when each line of the continuous feed came; a thread reads the feed."""
    database = source(database_url)
    parts = urlsplit(database.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=LONGEST_SECONDS)
    query = "feed=continuous&include_docs=true&since=now&heartbeat=5000"
    connection.request("GET", f"{parts.path}/_changes?{query}", headers=database.headers)
    came: dict[str, float] = {}

    def read() -> None:
        response = connection.getresponse()  # its head comes with the first heartbeat or line
        while line := response.readline():
            if line.strip():
                came[json.loads(line)["id"]] = time.monotonic()

    threading.Thread(target=read, daemon=True).start()
    time.sleep(LOOK_SECONDS + 0.5)  # the server must have taken `now` before the first write
    yield lambda wanted: [(id, came[id]) for id in wanted if id in came]


def measure(writes: Writes, look: Look) -> list[float]:
    """Write, and look for each document until it is visible.

    Returns:
        Seconds from the acknowledgement of each write until it was visible.

    Raises:
        RuntimeError: a write was refused, or has not become visible in time.
    """
    took: list[float] = []
    writes.start()
    while not writes.has_ended or writes.pending:
        took += [at - writes.pending.pop(id) for id, at in look(list(writes.pending))]
        late = time.monotonic() - LONGEST_SECONDS
        if any(at < late for at in list(writes.pending.values())):
            raise RuntimeError(f"a write was not visible after {LONGEST_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    if writes.refused:
        raise RuntimeError(writes.refused)
    return took


def main(database_url: str, *arguments: str) -> None:
    """Measure, and print the result."""
    *target, rate, seconds = arguments
    with look_at_table(*target) if target else look_at_feed(database_url) as look:
        took = measure(Writes(database_url, float(rate), float(seconds)), look)
    parts = statistics.quantiles(took, n=100)
    shown = {"writes": len(took), "p50_ms": round(parts[49] * 1000, 2), "p99_ms": round(parts[98] * 1000, 2)}
    print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
