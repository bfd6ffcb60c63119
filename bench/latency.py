"""How long a write, once CouchDB has acknowledged it, takes to become visible in PostgreSQL.

A process of its own, so that whatever else a measurement starts does not delay its clock. It prints one line
of JSON: `{"writes": ..., "p50_ms": ..., "p99_ms": ...}`.

Usage: python -m bench.latency DATABASE_URL DSN TABLE RATE SECONDS
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import threading
import time
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
        rate: writes a second.
        seconds: how long to write.

    Attributes:
        pending: id -> monotonic seconds of the acknowledgement.
    """

    def __init__(self, database_url: str, rate: float, seconds: float) -> None:
        self.pending: dict[str, float] = {}
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
        headers = {"Content-Type": "application/json"}
        if self._database.auth:
            token = base64.b64encode(":".join(self._database.auth).encode()).decode()
            headers["Authorization"] = f"Basic {token}"
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
                raise RuntimeError(f"PUT {id}: {response.status}")
        connection.close()


def measure(database_url: str, dsn: str, table: str, rate: float, seconds: float) -> list[float]:
    """Write, and look for each document until it is visible.

    Returns:
        Seconds from the acknowledgement of each write to the first look that found it.

    Raises:
        RuntimeError: a write was refused, or has not become visible in time.
    """
    writes = Writes(database_url, rate, seconds)
    took: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        writes.start()
        while not writes.has_ended or writes.pending:
            wanted = list(writes.pending)
            found = connection.execute(f"select _id from {table} where _id = any(%s)", (wanted,)).fetchall()
            now = time.monotonic()
            took += [now - writes.pending.pop(id) for (id,) in found]
            if any(now > at + LONGEST_SECONDS for at in list(writes.pending.values())):
                raise RuntimeError(f"a write was not visible after {LONGEST_SECONDS:.0f} s")
            time.sleep(LOOK_SECONDS)
    return took


def main(database_url: str, dsn: str, table: str, rate: str, seconds: str) -> None:
    """Measure, and print the result."""
    took = measure(database_url, dsn, table, float(rate), float(seconds))
    parts = statistics.quantiles(took, n=100)
    shown = {"writes": len(took), "p50_ms": round(parts[49] * 1000, 2), "p99_ms": round(parts[98] * 1000, 2)}
    print(json.dumps(shown))


if __name__ == "__main__":
    main(*sys.argv[1:])
