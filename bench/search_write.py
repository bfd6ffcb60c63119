"""Write documents into a search cluster by the transport and, for comparison, by a raw `_bulk` of the same.

    python -m bench.search_write [--type opensearch] [--url URL] [--documents 100000] [--batch 1000]
        [--rounds 3]

Starts a node of its own unless it is given one. Both ways write into an index with the same mapping
and settings; they take turns, and of each the best round counts, since the node shares the machine.
"""

from __future__ import annotations

from typing import Any, cast

from gevent import monkey

monkey.patch_all()

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import msgspec
import urllib3

from checkpoints import Checkpoint, Seq, TailKey
from pillows import registry
from pillows.models import Batch, DocumentRows, WriteResult
from pillows.transports.common.search import encoder
from tests.servers.elasticsearch import Elasticsearch
from tests.servers.opensearch import OpenSearch

MAPPING = {"dynamic": False, "properties": {"name": {"type": "keyword"}, "n": {"type": "integer"}}}
SETTINGS = {"number_of_replicas": 0}
SERVERS = {"elasticsearch": Elasticsearch, "opensearch": OpenSearch}


def documents(count: int) -> list[DocumentRows]:
    """Documents of about 500 bytes, as CouchDB sends them."""
    made = []
    for n in range(count):
        id = f"case-{n:08}"
        start = b'{"_id":"%b","_rev":"1-%032x","name":"name %d","n":%d,"text":"' % (
            id.encode(),
            n,
            n % 997,
            n,
        )
        body = start + b"lorem ipsum " * ((497 - len(start)) // 12) + b'"}'
        rows = {"out": [msgspec.Raw(body)]}
        made.append(DocumentRows(id=id, rev=f"1-{n:032x}", leaf_version=1, rows=rows, size_bytes=len(body)))
    return made


def spoil(document: DocumentRows) -> DocumentRows:
    """The same document with a text where the mapping says integer."""
    body = bytes(cast("msgspec.Raw", document.rows["out"][0])).replace(b'"n":', b'"n":"x","m":')
    return msgspec.structs.replace(document, rows={"out": [msgspec.Raw(body)]})


def batches(made: Sequence[DocumentRows], size: int) -> Iterator[Batch]:
    """Cuts them as the batcher does."""
    for start in range(0, len(made), size):
        yield Batch(documents=made[start : start + size], epoch=1)


class Bench:
    """One node and one set of documents."""

    def __init__(self, its_type: str, url: str, made: Sequence[DocumentRows], batch: int) -> None:
        self.kind: Any = registry.transport(its_type)
        self.url = url
        self.batches = list(batches(made, batch))
        self.spoilt = list(batches([spoil(d) if n % 100 == 50 else d for n, d in enumerate(made)], batch))
        self.lines = [
            b"".join(o.body for o in encoder.encode_operations(b.documents, "out", 1, deleted_at_ms=None)[0])
            for b in self.batches
        ]
        self.count = len(made)

    def transport(self, turn: int) -> tuple[float, float]:
        """Seconds and our CPU seconds by the transport."""
        return self._transport(turn, self.batches, bad=0)

    def one_percent_bad(self, turn: int) -> tuple[float, float]:
        """The same, with a value that its field refuses in every hundredth document."""
        return self._transport(turn, self.spoilt, bad=self.count // 100)

    def _transport(self, turn: int, batches: Sequence[Batch], *, bad: int) -> tuple[float, float]:
        one = self.kind(
            "search",
            TailKey("bench", "file/bench"),
            self.kind.Connection(hosts=(self.url,)),
            {"out": self.kind.Output(index=f"bench-transport-{turn}", mapping=MAPPING, settings=SETTINGS)},
        )
        one.open()
        one.acquire(Checkpoint(seq=Seq.BEGINNING))

        def write() -> None:
            results = [one.write(batch) for batch in batches]
            assert sum(len(result.dead) for result in results) == bad
            assert all(result == WriteResult(dead=result.dead) for result in results)

        try:
            return measured(write)
        finally:
            one.close()

    def raw(self, turn: int) -> tuple[float, float]:
        """Seconds and our CPU seconds of the same lines, sent without looking at the answers."""
        pool = urllib3.PoolManager()
        index = f"{self.url}/bench-raw-{turn}"
        body = {"mappings": MAPPING, "settings": {"gc_deletes": "1h", **SETTINGS}}
        assert pool.request("PUT", index, json=body).status == 200
        headers = {"content-type": "application/x-ndjson"}

        def write() -> None:
            for lines in self.lines:
                answer = pool.request("POST", f"{index}/_bulk", body=lines, headers=headers)
                assert b'"errors":false' in answer.data[:100], answer.data[:500]

        return measured(write)

    def build(self) -> float:
        """CPU seconds of building the lines alone."""
        began = time.process_time()
        for batch in self.batches:
            encoder.encode_operations(batch.documents, "out", 1, deleted_at_ms=None)
        return time.process_time() - began

    def clean(self) -> None:
        """Deletes the indices, so that every round meets the same node."""
        pool = urllib3.PoolManager()
        listed = pool.request("GET", f"{self.url}/_cat/indices/bench-*?h=index").data.decode()
        for index in listed.split():
            pool.request("DELETE", f"{self.url}/{index}")


def measured(write: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    write()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--type", choices=SERVERS, default="elasticsearch")
    parser.add_argument("--url")
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.url or stack.enter_context(SERVERS[options.type]()).url
        bench = Bench(options.type, url, documents(options.documents), options.batch)
        bench.clean()
        for _ in range(2):  # the JVM must be warm for both
            bench.raw(99)
            bench.clean()
        ways = {"raw _bulk": bench.raw, "transport": bench.transport, "1 % bad": bench.one_percent_bad}
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for turn in range(options.rounds):
            for name, run in ways.items():
                runs[name].append(run(turn))
                bench.clean()
        print(f"{bench.count} documents in batches of {options.batch}, best of {options.rounds}")
        for name, results in runs.items():
            wall, cpu = min(results)
            each = " ".join(f"{bench.count / one:.0f}" for one, _ in results)
            print(
                f"{name:>10}: {bench.count / wall:7.0f} documents/s, "
                f"{cpu / bench.count * 1e6:5.2f} us of our CPU each  (rounds: {each})"
            )
        print(f"building the lines alone: {bench.build() / bench.count * 1e6:.2f} us each")


if __name__ == "__main__":
    main()
