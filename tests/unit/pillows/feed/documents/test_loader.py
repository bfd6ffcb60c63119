"""The memory of documents in flight is bounded, however large the database is."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from checkpoints import Seq
from pillows.feed.documents.fetcher import FetchKey, fetch_key
from pillows.feed.documents.loader import AverageSize, DocumentLoader
from pillows.feed.documents.throttle import ConcurrencyLimit
from pillows.models import Change, ChangeBatch


def rare(number: int, *, seq: int) -> ChangeBatch:
    """A hundred changes, of which a filter by id wants the one of the very first batch."""
    changes = [Change(id=f"{number}-{n}", revs=("1-a",), leaf_version=1) for n in range(100)]
    return ChangeBatch(changes=changes, seq=Seq.of(seq), size_bytes=10_000)


def test_what_no_filter_wants_is_not_held_until_there_are_documents_enough_for_a_request():
    """With one wanted document in a million changes, the changes behind it once waited for 299 others."""
    given: list[ChangeBatch] = []
    held, most = 0, 0

    def fetch(changes: Sequence[Change]) -> dict[FetchKey, Change]:
        raw = msgspec.Raw(b"{}")
        return {fetch_key(change): msgspec.structs.replace(change, raw=raw) for change in changes}

    loader = DocumentLoader(
        fetch,
        given.append,
        wants=lambda change: change.id == "0-0",
        limit=ConcurrencyLimit(4),
        sizes=AverageSize(),
    )
    for number in range(1000):
        loader.add(rare(number, seq=number + 1))
        held = 100 * (number + 1) - sum(len(batch.changes) for batch in given)
        most = max(most, held)
    loader.drain()

    assert most <= 20_000
    assert [batch.seq for batch in given] == [Seq.of(number + 1) for number in range(1000)]
    assert given[0].changes[0].raw is not None
