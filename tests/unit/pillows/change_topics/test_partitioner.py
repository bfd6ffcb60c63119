"""Where a document's records are."""

from __future__ import annotations

import pytest

from pillows.change_topics.partitioner import find_partition, hash_key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_it_hashes_as_kafkas_own_test_has_it(key: bytes, expected: int) -> None:
    assert hash_key(key) == expected & 0xFFFFFFFF


def test_every_document_has_one_partition() -> None:
    found = [find_partition(f"document-{number}", 12) for number in range(600)]
    assert set(found) == set(range(12))
