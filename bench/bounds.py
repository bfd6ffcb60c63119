"""What the machine allows, and how much of it pillowd reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.meter import Reading

#: CPU microseconds per document that the bound grants to pillowd's own process.
CLIENT_MICROS = 16.0

CURL = "curl include_docs"
#: Raw reads of all documents.
READS = (CURL, "ids + 4 x _bulk_get")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target that pillowd writes to.

    Attributes:
        name: of the target.
        server: whose CPU counts.
        load: the participant that loads the documents alone.
        bar: the least share of the bound that pillowd is to reach; None where nothing is asked.
    """

    name: str
    server: str
    load: str
    bar: float | None = None


TARGETS = (
    Target(name="PostgreSQL", server="postgres", load="COPY alone", bar=0.92),
    Target(name="Elasticsearch", server="elasticsearch", load="_bulk alone", bar=0.85),
    Target(name="OpenSearch", server="opensearch", load="_bulk into OpenSearch alone"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of the bound pillowd reaches.

    Attributes:
        target: where it writes to.
        rate: its documents per second.
        bound: documents per second that the machine allows; None if CouchDB's CPU was not measured.
        of_curl: its rate by that of curl.
    """

    target: Target
    rate: float
    bound: float | None
    of_curl: float

    @property
    def of_bound(self) -> float | None:
        """The rate, divided by the bound."""
        return self.rate / self.bound if self.bound else None

    @property
    def is_met(self) -> bool:
        """Whether it reaches the bar; a share that is not known does not."""
        return self.target.bar is None or (self.of_bound or 0.0) >= self.target.bar


def find_bound(read: Reading, load: Reading, server: str, cores: int) -> float | None:
    """Return the documents per second that no client can beat; None if CouchDB's CPU was not measured.

    It is `min(a, b, cores / (a's CPU + b's CPU + 16 us))`, where a is the fastest raw read, b the load
    alone, a's CPU that of CouchDB and b's CPU that of the target, for each document.
    """
    if "couchdb" not in read.cpu_seconds:
        return None
    micros = read.cpu_micros("couchdb") + load.cpu_micros(server) + CLIENT_MICROS
    return min(read.rate, load.rate, cores * 1e6 / micros)


def find_shares(readings: Mapping[str, Reading], cores: int) -> list[Share]:
    """Return pillowd's share of each target's bound.

    Args:
        readings: by participant.
        cores: of the machine.
    """
    read = max((readings[name] for name in READS), key=lambda reading: reading.rate)
    shares = []
    for target in TARGETS:
        rate = readings[f"pillowd into {target.name}"].rate
        bound = find_bound(read, readings[target.load], target.server, cores)
        shares.append(Share(target=target, rate=rate, bound=bound, of_curl=rate / readings[CURL].rate))
    return shares
