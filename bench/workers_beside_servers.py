"""What worker processes cost where they can gain nothing: no transform, and servers on the same cores.

Usage: python -m bench.workers_beside_servers [--docs N] [--rounds N] [--workers N] [--note]

CouchDB's documents go into PostgreSQL and Elasticsearch: without workers, with workers that get them from
the feed, and with workers that fetch them with `_bulk_get`. Each runs once a round, one right after the
other, so that whatever else runs on the machine slows all of them down; the median of the rounds counts.

The second way costs CouchDB more, and pays where CouchDB has cores of its own. Here it is compared with its
own bound: the raw read of ids and `_bulk_get`, the raw load, and the CPU time of all processes.

`--note` writes the figures into `docs/explanation/worker-processes.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.meter import Reading, median_of
from bench.participants import Participant, bulk, bulk_get, copy, run_in_turns
from bench.report import describe, format_readings
from bench.servers import Servers
from docs.measured import ROOT, format_table, write_between_marks

PAGE = ROOT / "docs" / "explanation" / "worker-processes.md"

#: How pillowd runs, with the `documents` of its source: the first without workers.
WAYS = {"without workers": "auto", "workers, include_docs": "include_docs", "workers, _bulk_get": "bulk_get"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where pillowd writes to.

    Attributes:
        name: of the target.
        server: whose CPU counts.
        load: loads the documents alone.
        run: runs pillowd, given the workers and the source's `documents`.
    """

    name: str
    server: str
    load: Callable[[Servers], Reading]
    run: Callable[[Servers, str, int, str], Reading]


def _into_postgres(servers: Servers, name: str, workers: int, documents: str) -> Reading:
    with servers.empty_postgres() as dsn:
        target = f'{{ type: postgres, dsn: "{dsn}" }}'
        reading = servers.measure_pillowd(name, target, "table: bench", workers=workers, documents=documents)
        servers.check_table(dsn, "bench")
    return reading


def _into_elasticsearch(servers: Servers, name: str, workers: int, documents: str) -> Reading:
    with servers.empty_index("elasticsearch") as (url, index):
        target = f'{{ type: elasticsearch, hosts: ["{url}"] }}'
        reading = servers.measure_pillowd(
            name, target, f"index: {index}", workers=workers, documents=documents
        )
        servers.check_index(url, index)
    return reading


TARGETS = (
    Target(name="PostgreSQL", server="postgres", load=copy, run=_into_postgres),
    Target(name="Elasticsearch", server="elasticsearch", load=bulk, run=_into_elasticsearch),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What workers cost with one target.

    Attributes:
        target: where pillowd writes to.
        of_none: the rate with documents from the feed, by the rate without workers: the median of the rounds.
        fetching: the rate with `_bulk_get`, in documents per second.
        bound: documents per second that this way allows.
    """

    target: Target
    of_none: float
    fetching: float
    bound: float

    @property
    def of_bound(self) -> float:
        """The rate with `_bulk_get` by its bound."""
        return self.fetching / self.bound


def find_bound(read: Reading, load: Reading, fetching: Reading, server: str, cores: int) -> float:
    """Return the documents per second that no run with `_bulk_get` can beat.

    Args:
        read: ids and `_bulk_get` alone.
        load: the load alone.
        fetching: pillowd, whose own CPU counts.
        server: the target's.
        cores: of the machine.
    """
    micros = read.cpu_micros("couchdb") + load.cpu_micros(server) + fetching.cpu_micros()
    return min(read.rate, load.rate, cores * 1e6 / micros)


def compare(
    target: Target, read: Reading, load: Reading, ways: Sequence[Sequence[Reading]], cores: int
) -> Cost:
    """Return the cost of workers.

    Args:
        target: where pillowd wrote to.
        read, load: the raw ones.
        ways: the readings of each of `WAYS`, one for each round.
        cores: of the machine.
    """
    none, _, fetching = ways
    pairs = zip(none, ways[1], strict=True)
    middle = median_of(fetching)
    return Cost(
        target=target,
        of_none=statistics.median(some.rate / plain.rate for plain, some in pairs),
        fetching=middle.rate,
        bound=find_bound(read, load, middle, target.server, cores),
    )


def format_costs(costs: Sequence[Cost]) -> str:
    """Return the comparison, in Markdown."""
    head = ("into", "include_docs, times no workers", "_bulk_get, documents/s", "its bound", "of the bound")
    rows = [
        [
            cost.target.name,
            f"{cost.of_none:.2f}",
            f"{cost.fetching:,.0f}",
            f"{cost.bound:,.0f}",
            f"{cost.of_bound:.2f}",
        ]
        for cost in costs
    ]
    return format_table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--docs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--note", action="store_true", help="write the figures into the documentation")
    given = parser.parse_args()
    participants: list[Participant] = [bulk_get]
    for target in TARGETS:
        participants += [target.load, *(_choose(target, way, given.workers) for way in WAYS)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pillowd-bench-")))
        folder.chmod(0o755)
        servers = Servers(given.docs, folder, stack, search=True)
        servers.load()
        readings = run_in_turns(servers, participants, given.rounds)
        described = describe(servers.describe(), readings)
    read, cores = median_of(readings[0]), os.cpu_count() or 1
    costs = []
    for number, target in enumerate(TARGETS):
        load, *ways = readings[1 + 4 * number : 5 + 4 * number]
        costs.append(compare(target, read, median_of(load), ways, cores))
    text = "\n\n".join([described, format_readings(readings), format_costs(costs)])
    print(text)
    if given.note:
        write_between_marks(PAGE, text, mark="workers-beside-servers")


def _choose(target: Target, way: str, workers: int) -> Participant:
    def run(servers: Servers) -> Reading:
        documents = WAYS[way]
        return target.run(servers, f"{target.name}, {way}", 0 if documents == "auto" else workers, documents)

    run.__name__ = f"{target.name}, {way}"
    return run


if __name__ == "__main__":
    main()
