"""The clinic's database: filled once, and changed again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.demo import data
from tests.servers.couch_client import CouchDatabase

DATABASE = "clinic"
PASSWORD = "s3cret"


def fill(couch: CouchDatabase, documents: Sequence[dict[str, Any]]) -> None:
    """Write documents, then conflicts, updates and deletions of some of them."""
    revs = {row["id"]: row["rev"] for row in couch.bulk(documents)}
    present = [document | {"_rev": revs[document["_id"]]} for document in documents]
    couch.bulk(data.conflicts(present, seed=3, count=len(documents) // 100), new_edits=False)
    couch.bulk(data.edits(present, seed=1, share=0.1))


def change(couch: CouchDatabase, *, seed: int, share: float) -> int:
    """Change or delete a share of the documents, and return how many."""
    present = list(couch.documents().values())
    return len(couch.bulk(data.edits(present, seed=seed, share=share)))
