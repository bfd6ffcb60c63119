"""What the typical declarative transform costs: pick, rename, compute and types, with the parsing.

Usage: python -m bench.transforms
"""

from __future__ import annotations

import time

import msgspec

from pillows.models import Document
from pillows.stages.declarative import DeclarativeStep
from pillows.stages.transforms import Chain

_FORM = {
    "_id": "0a6f1c52b0d1437fa4f1c6ac7c00c3b1",
    "_rev": "3-967a00dff5e02add41819138abb3284d",
    "doc_type": "CommCareCase",
    "domain": "demo",
    "name": "Ada Lovelace",
    "opened_on": "2026-03-01T12:00:00.000000Z",
    "closed": "no",
    "age": "36",
    "address": {"street": "12 St James Square", "city": "London", "zip": "SW1Y"},
    "owner": {"id": "b3c1", "name": "Charles"},
    "visits": [{"on": "2026-03-02", "kind": "home"}, {"on": "2026-03-09", "kind": "clinic"}],
    "notes": "x" * 60,
}

STEP = DeclarativeStep(
    pick=["_id", "name", "opened_on", "closed", "age", "address.city", "owner.name"],
    rename={"address.city": "city", "owner.name": "owner_name", "opened_on": "opened_at"},
    compute={"visits": "length(visits)"},
    types={"age": "integer", "closed": "boolean", "opened_at": "timestamp"},
)


def microseconds_per_document(documents: int) -> float:
    """Microseconds of CPU that one document of 500 bytes takes, from its bytes to its row."""
    raw = msgspec.Raw(msgspec.json.encode(_FORM))
    chain = Chain([STEP], ("case",))
    fresh = [Document(id="a", rev="1-a", leaf_version=1, deleted=False, raw=raw) for _ in range(documents)]
    began = time.thread_time()
    for document in fresh:
        chain(document)
    return (time.thread_time() - began) / documents * 1e6


if __name__ == "__main__":
    print(f"{len(msgspec.json.encode(_FORM))} bytes a document")
    print(f"{min(microseconds_per_document(20_000) for _ in range(5)):.1f} microseconds per document")
