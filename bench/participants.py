"""The participants: raw reads and raw loads, which set the bound, and pillowd."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from bench.meter import Reading
from bench.servers import Servers
from tests.servers.postgres import PASSWORD

Participant = Callable[[Servers], Reading]


def curl(servers: Servers) -> Reading:
    """Read the feed with its documents, and discard it."""
    return servers.measure("curl include_docs", servers.curl_command(Path("/dev/null")))


def bulk_get(servers: Servers) -> Reading:
    """Read ids, and the documents by four `_bulk_get` at a time."""
    return servers.measure_module("ids + 4 x _bulk_get", "bench.bulk_get", servers.database.url)


def copy(servers: Servers) -> Reading:
    """Load the documents into PostgreSQL, without a source."""
    with servers.empty_postgres() as dsn:
        reading = servers.measure_module("COPY alone", "bench.targets", "copy", dsn, str(servers.docs))
        servers.check_table(dsn, "copied")
    return reading


def bulk(servers: Servers) -> Reading:
    """Load the documents into Elasticsearch, without a source."""
    return _bulk(servers, "elasticsearch", "_bulk alone")


def bulk_opensearch(servers: Servers) -> Reading:
    """Load the documents into OpenSearch, without a source."""
    return _bulk(servers, "opensearch", "_bulk into OpenSearch alone")


def pillowd_postgres(servers: Servers) -> Reading:
    """Run pillowd into PostgreSQL."""
    with servers.empty_postgres() as dsn:
        target = f'{{ type: postgres, dsn: "{dsn}" }}'
        reading = servers.measure_pillowd("pillowd into PostgreSQL", target, "table: bench")
        servers.check_table(dsn, "bench")
    return reading


def mirror_once(servers: Servers) -> Reading:
    """Run `pillowd mirror --once` into PostgreSQL, from its start to its end."""
    user, password = servers.couch.auth or ("", "")
    url = servers.database.url.replace("://", f"://{quote(user, safe='')}@" if user else "://", 1)
    state = tempfile.mkdtemp(dir=servers.folder)
    with servers.empty_postgres() as dsn:
        target = dsn.replace(f":{PASSWORD}@", "@")
        command = [sys.executable, "-m", "daemon", "mirror", url, target, "--once", "--name", "bench"]
        secrets = {"COUCHDB_PASSWORD": password, "TARGET_PASSWORD": PASSWORD}
        reading = servers.measure("pillowd mirror --once", [*command, "--state-dir", state], env=secrets)
        servers.check_table(dsn, "bench")
    return reading


def pillowd_elasticsearch(servers: Servers) -> Reading:
    """Run pillowd into Elasticsearch."""
    return _pillowd_search(servers, "elasticsearch", "pillowd into Elasticsearch")


def pillowd_opensearch(servers: Servers) -> Reading:
    """Run pillowd into OpenSearch."""
    return _pillowd_search(servers, "opensearch", "pillowd into OpenSearch")


def pipeline_alone(servers: Servers) -> Reading:
    """Run reader and pipeline from a recorded feed, without any server."""
    recorded = servers.folder / "changes.json"
    return servers.measure_module("reader and pipeline alone", "bench.alone", str(recorded))


def follower(servers: Servers) -> Reading:
    """Run a short script around ibmcloudant's ChangesFollower and psycopg."""
    with servers.empty_postgres() as dsn:
        reading = servers.measure_module(
            "ChangesFollower + psycopg", "bench.peers.follower", servers.database.url, dsn
        )
        servers.check_table(dsn, "follower")
    return reading


def _bulk(servers: Servers, server: str, name: str) -> Reading:
    with servers.empty_index(server) as (url, index):
        reading = servers.measure_module(name, "bench.targets", "bulk", url, index, str(servers.docs))
        servers.check_index(url, index)
    return reading


def _pillowd_search(servers: Servers, server: str, name: str) -> Reading:
    with servers.empty_index(server) as (url, index):
        target = f'{{ type: {server}, hosts: ["{url}"] }}'
        reading = servers.measure_pillowd(name, target, f"index: {index}")
        servers.check_index(url, index)
    return reading


#: In this order in each round: a raw read and a raw load stand right before what they bound.
ALL: tuple[Participant, ...] = (
    curl,
    bulk_get,
    copy,
    pillowd_postgres,
    bulk,
    pillowd_elasticsearch,
    bulk_opensearch,
    pillowd_opensearch,
    pipeline_alone,
)


def run_in_turns(servers: Servers, participants: Sequence[Participant], rounds: int) -> list[list[Reading]]:
    """Run every participant once a round; return the readings of each participant.

    Whatever else the machine does then slows down all of them, and not one.
    """
    readings: list[list[Reading]] = [[] for _ in participants]
    for number in range(rounds):
        for own, participant in zip(readings, participants, strict=True):
            print(f"round {number + 1} of {rounds}: {participant.__name__} ...", flush=True)
            own.append(participant(servers))
    return readings
