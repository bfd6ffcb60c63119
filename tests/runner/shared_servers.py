"""Servers that all workers of a run share, each started when the first test asks for it.

A worker asks by a file `NAME.wanted` in the run's folder and waits for `NAME.json`: the server's address,
or why it cannot be had.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.servers.process import ServerUnavailable
from tests.support.waiting import wait_until

#: Longer than a server may take to start.
LIMIT_SECONDS = 240.0


def ask_for_server(name: str) -> dict[str, Any] | None:
    """Return the address of a shared server; None outside a run with workers.

    Raises:
        ServerUnavailable: with the reason.
    """
    if "PILLOWD_TEST_RUN" not in os.environ:
        return None
    folder = Path(os.environ["PILLOWD_TEST_RUN"])
    answer = folder / f"{name}.json"
    (folder / f"{name}.wanted").touch()
    wait_until(answer.exists, seconds=LIMIT_SECONDS)
    told: dict[str, Any] = json.loads(answer.read_bytes())
    if "unavailable" in told:
        raise ServerUnavailable(told["unavailable"])
    return told


class SharedServers:
    """Start servers when workers want them; stop all of them at the end.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads: dict[str, threading.Thread] = {}
        self._stop = threading.Event()

    def __enter__(self) -> SharedServers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads.values():
            thread.join()

    def start_wanted(self) -> None:
        """Start what was asked for since the last call."""
        for path in self._folder.glob("*.wanted"):
            if path.stem not in self._threads:
                # A server dies with the thread that started it, which therefore stays until the end.
                thread = threading.Thread(target=self._serve, args=(path.stem,))
                self._threads[path.stem] = thread
                thread.start()

    def _serve(self, name: str) -> None:
        with ExitStack() as stack:
            try:
                told = STARTERS[name](stack)
            except ServerUnavailable as unavailable:
                told = {"unavailable": str(unavailable)}
            half = self._folder / f"{name}.half"
            half.write_text(json.dumps(told))
            half.rename(self._folder / f"{name}.json")
            self._stop.wait()


def _start_couchdb(stack: ExitStack) -> dict[str, Any]:
    from tests.servers.couchdb.process import CouchDB

    server = stack.enter_context(CouchDB())
    return {"url": server.url, "auth": server.auth}


def _start_postgres(stack: ExitStack) -> dict[str, Any]:
    from tests.servers.postgres import Postgres

    return {"dsn": stack.enter_context(Postgres()).dsn}


def _start_elasticsearch(stack: ExitStack) -> dict[str, Any]:
    from tests.servers.elasticsearch import Elasticsearch

    return {"url": stack.enter_context(Elasticsearch()).url}


def _start_opensearch(stack: ExitStack) -> dict[str, Any]:
    from tests.servers.opensearch import OpenSearch

    return {"url": stack.enter_context(OpenSearch()).url}


def _start_kafka(stack: ExitStack) -> dict[str, Any]:
    from tests.servers.kafka import Kafka

    return {"where": stack.enter_context(Kafka()).where}


STARTERS: dict[str, Callable[[ExitStack], dict[str, Any]]] = {
    "couchdb": _start_couchdb,
    "postgres": _start_postgres,
    "elasticsearch": _start_elasticsearch,
    "opensearch": _start_opensearch,
    "kafka": _start_kafka,
}
