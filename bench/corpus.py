"""The documents that every participant moves: about 500 bytes each, the same at every run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import requests

from tests.servers.source import Source

PAD = 330


def document(number: int) -> dict[str, object]:
    """Document `number`."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return {
        "_id": digest[:32],
        "doc_type": ("Case", "Form", "User")[number % 3],
        "n": number,
        "name": f"name {digest[:12]}",
        "opened_on": f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}T08:00:00Z",
        "closed": number % 7 == 0,
        "text": (digest * 6)[:PAD],
    }


def bodies(count: int) -> Iterator[bytes]:
    """The documents as JSON lines without newline."""
    for number in range(count):
        yield json.dumps(document(number), separators=(",", ":")).encode()


def load(database: Source, count: int) -> None:
    """Fills a fresh database, unless it holds as many documents already."""
    session = requests.Session()
    session.trust_env = False  # a password in ~/.netrc would go before ours
    session.headers.update(database.headers)
    present = session.get(database.url, timeout=60)
    if present.ok and present.json()["doc_count"] == count:
        return
    session.delete(database.url, timeout=60)
    session.put(database.url, timeout=60).raise_for_status()
    for start in range(0, count, 1000):
        docs = [document(number) for number in range(start, min(start + 1000, count))]
        session.post(f"{database.url}/_bulk_docs", json={"docs": docs}, timeout=300).raise_for_status()
        print(f"\rloading {start + len(docs):,} of {count:,}", end="", flush=True)
    print()
