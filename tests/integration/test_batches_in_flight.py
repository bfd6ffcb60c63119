"""Several batches in flight, into a real Elasticsearch over a line that breaks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import gevent
from elasticsearch import Elasticsearch
from elasticsearch.helpers import scan
from gevent.event import Event

from pillows import registry
from pillows.delivery.batcher import BatchOptions
from pillows.runtime.status import State
from pillows.runtime.tail import Tail
from tests.servers.tcp_proxy import TcpProxy
from tests.support.list_feed import ListFeed, batch, change
from tests.support.memory_transport import KEY
from tests.support.sizes import size
from tests.support.tails import plan
from tests.support.waiting import wait_until

COUNT = size(ci=2_000, proof=100_000)
DOCUMENTS = COUNT // 20
LANES = 4


def history() -> tuple[ListFeed, dict[str, int]]:
    """Each document many times, some deleted in the end; and what must be there then."""
    random = Random(2026)
    generations: dict[str, int] = {}
    deleted: dict[str, bool] = {}
    changes = []
    for _ in range(COUNT):
        id = f"d{random.randrange(DOCUMENTS):05}"
        generations[id] = generations.get(id, 0) + 1
        deleted[id] = random.random() < 0.2
        changes.append(change(id, f"{generations[id]}-a", deleted=deleted[id], n=generations[id]))
    parts = [changes[at : at + 100] for at in range(0, COUNT, 100)]
    batches = [batch(f"{n}-a", *part, caught_up=n == len(parts)) for n, part in enumerate(parts, 1)]
    return ListFeed(batches), {id: n for id, n in generations.items() if not deleted[id]}


def test_several_batches_in_flight_leave_every_document_as_it_was_last(
    tmp_path: Path, elasticsearch_url: str, es_prefix: str, tcp_proxy: Callable[[Any], TcpProxy]
) -> None:
    host, _, port = elasticsearch_url.removeprefix("http://").partition(":")
    proxy = tcp_proxy((host, int(port)))
    index = f"{es_prefix}partitions"
    kind: Any = registry.transport("elasticsearch")
    connection = kind.Connection(hosts=(proxy.url,))
    output = kind.Output(index=index, mapping={"dynamic": False})
    feed, expected = history()
    made = plan(
        tmp_path,
        feed,
        make_transports=lambda: [kind("search", KEY, connection, {"cases": output})],
        max_in_flight=LANES,
        batch=BatchOptions(max_docs=50),
    )
    stop, tail = Event(), Tail(made.settings, made.services)
    running = gevent.spawn(tail.run, stop)

    def has_done(share: float) -> bool:
        return tail.status().changes > share * COUNT

    try:
        for share in (0.2, 0.5, 0.8):
            wait_until(partial(has_done, share), seconds=300, worker=running)
            proxy.reset()
        wait_until(lambda: tail.state is State.LIVE, seconds=300, worker=running)
        carriers = [each for each in proxy.connections if b"/_bulk" in each.to_server]
        assert len(carriers) > 1 + 3  # one partition needs one, and another after each reset
    finally:
        stop.set()
        running.get(timeout=120)
        saved = made.store.get(KEY)
        made.store.close()
        made.dead_letters.close()

    assert saved is not None
    assert saved.changes == COUNT
    with closing(Elasticsearch(elasticsearch_url)) as client:
        client.indices.refresh(index=index)
        found = scan(client, index=index, size=10_000, source_includes=["n"])
        assert {hit["_id"]: hit["_source"]["n"] for hit in found} == expected
