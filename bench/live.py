"""From a write to the target: pillowd compared with a raw reader of the continuous feed, at several rates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import requests

from bench.servers import Servers
from docs.measured import format_table

DATABASE = "pillowd_bench_live"
RATES = (100, 300)
SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The figures at one rate.

    Attributes:
        rate: writes per second.
        writes: how many were measured.
        feed_p50_ms, feed_p99_ms: from CouchDB's acknowledgement until the raw reader had the change.
        table_p50_ms, table_p99_ms: until pillowd's row could be seen in PostgreSQL.
    """

    rate: float
    writes: int
    feed_p50_ms: float
    feed_p99_ms: float
    table_p50_ms: float
    table_p99_ms: float


def measure(servers: Servers, rates: Sequence[float] = RATES, seconds: float = SECONDS) -> list[Latency]:
    """Write at each rate, once for the raw reader and once for pillowd, into a database of their own."""
    return [_measure(servers, rate, seconds) for rate in rates]


def _measure(servers: Servers, rate: float, seconds: float) -> Latency:
    with _empty_database(servers) as url:
        feed = _run(servers, url, rate, seconds)
    with _empty_database(servers) as url, servers.empty_postgres() as dsn:
        target = f'{{ type: postgres, dsn: "{dsn}" }}'
        with servers.running_pillowd(target, "table: live", database=DATABASE):
            table = _run(servers, url, rate, seconds, dsn, "live")
    return Latency(
        rate=rate,
        writes=int(table["writes"]),
        feed_p50_ms=feed["p50_ms"],
        feed_p99_ms=feed["p99_ms"],
        table_p50_ms=table["p50_ms"],
        table_p99_ms=table["p99_ms"],
    )


def _run(servers: Servers, url: str, rate: float, seconds: float, *target: str) -> dict[str, float]:
    """Run the writer, which also looks for its documents, in a process of its own."""
    command = [sys.executable, "-m", "bench.latency", url, *target, str(rate), str(seconds)]
    environ = os.environ | servers.couch.environ
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextmanager
def _empty_database(servers: Servers) -> Iterator[str]:
    database = replace(servers.couch, url=f"{servers.couch.url}/{DATABASE}")
    with requests.Session() as session:
        session.trust_env = False
        session.headers.update(database.headers)
        session.delete(database.url, timeout=60)
        session.put(database.url, timeout=60).raise_for_status()
        try:
            yield database.url
        finally:
            session.delete(database.url, timeout=60)


def format_latencies(latencies: Sequence[Latency]) -> str:
    """Return the figures in Markdown."""
    head = ["writes per second", "writes", "raw reader p50, ms", "p99", "PostgreSQL p50, ms", "p99"]
    rows = [
        [
            f"{each.rate:g}",
            f"{each.writes:,}",
            *(f"{each.feed_p50_ms:.1f}", f"{each.feed_p99_ms:.1f}"),
            *(f"{each.table_p50_ms:.1f}", f"{each.table_p99_ms:.1f}"),
        ]
        for each in latencies
    ]
    return format_table(head, rows)
