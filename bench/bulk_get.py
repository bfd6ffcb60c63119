"""The least that reads ids and fetches documents with four `_bulk_get` at a time.

Usage: python -m bench.bulk_get DATABASE_URL
"""

from __future__ import annotations

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import local
from urllib.parse import urlsplit

from tests.servers.source import source

DOCS_A_REQUEST = 300
IN_FLIGHT = 4
PAGE = 2000

_mine = local()


def main(database_url: str) -> None:
    database = source(database_url)
    parts = urlsplit(database.url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def connection() -> http.client.HTTPConnection:
        if not hasattr(_mine, "connection"):
            _mine.connection = kind(parts.netloc, timeout=300)
        connection: http.client.HTTPConnection = _mine.connection
        return connection

    def ask(method: str, path: str, body: str | None = None) -> bytes:
        headers = database.headers | {"content-type": "application/json"}
        connection().request(method, f"{parts.path}/{path}", body, headers)
        answer = connection().getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"the server answered {answer.status} {text[:200]!r}")
        return text

    def page(since: str) -> tuple[list[tuple[str, str]], str]:
        query = f"style=all_docs&seq_interval=100&limit={PAGE}&since={since}"
        answer = json.loads(ask("GET", f"_changes?{query}"))
        return [(r["id"], r["changes"][0]["rev"]) for r in answer["results"]], answer["last_seq"]

    def fetch(rows: list[tuple[str, str]]) -> int:
        body = json.dumps({"docs": [{"id": id, "rev": rev} for id, rev in rows]})
        return len(ask("POST", "_bulk_get", body))

    with ThreadPoolExecutor(IN_FLIGHT + 1) as pool:
        ahead = pool.submit(page, "0")
        fetches = []
        while True:
            rows, seq = ahead.result()
            if not rows:
                break
            ahead = pool.submit(page, seq)
            fetches += [
                pool.submit(fetch, rows[at : at + DOCS_A_REQUEST])
                for at in range(0, len(rows), DOCS_A_REQUEST)
            ]
            while len(fetches) > 2 * IN_FLIGHT:
                fetches.pop(0).result()
        total = sum(each.result() for each in fetches)
    print(f"{total} bytes in the last fetches", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
