"""The rate to beat: 16 readers that do nothing but fetch the changes of each database.

Usage: python -m bench.read_databases SERVER_URL PREFIX COUNT

It prints the seconds. They use requests, as pillowd does: the rest of pillowd's time is what it adds.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
import time

import requests
from gevent.pool import Pool
from requests.adapters import HTTPAdapter

from tests.servers.source import source

READERS = 16


def read_all(url: str, prefix: str, count: int) -> float:
    """Fetch all; return the seconds."""
    server = source(url)
    session = requests.Session()
    session.auth = server.auth
    session.mount("http://", HTTPAdapter(pool_maxsize=READERS))

    def read(number: int) -> None:
        path = f"{server.url}/{prefix}{number:05}/_changes?include_docs=true"
        session.get(path, timeout=60).raise_for_status()

    began = time.perf_counter()
    for _ in Pool(READERS).imap_unordered(read, range(count)):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    print(read_all(sys.argv[1], sys.argv[2], int(sys.argv[3])))
