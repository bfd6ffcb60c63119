"""Records of changes: what goes in comes out."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from pillows.change_topics import records
from pillows.change_topics.records import (
    PurgeRecord,
    decode_change,
    decode_purge,
    encode_change,
    encode_purge,
    make_headers,
)
from pillows.feed.base import DatabaseIdentity, count_purges
from pillows.models import Change

REV = "12-0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "change",
    [
        Change(id="a", revs=(REV,), leaf_version=12),
        Change(id="ü/\x00", revs=(REV, "11-b", "1-c"), leaf_version=24, deleted=True),
        Change(id="a", revs=("0-purged",), leaf_version=0, deleted=True),
        Change(id="a", revs=(REV,), leaf_version=1, defect="It is too large."),
    ],
)
def test_a_change_comes_back_without_its_document(change: Change) -> None:
    assert decode_change(change.id.encode(), encode_change(change)) == change


def test_a_record_holds_leaves_alone_and_is_small() -> None:
    raw = msgspec.Raw(b'{"secret": 1}')
    value = encode_change(Change(id="a", revs=(REV,), leaf_version=12, raw=raw, parsed={"secret": 1}))
    assert b"secret" not in value
    assert len(value) < 60
    assert msgspec.msgpack.decode(value) == {"v": 12, "r": REV}


def test_a_deletion_is_no_null() -> None:
    value = encode_change(Change(id="a", revs=("2-b",), leaf_version=2, deleted=True))
    assert msgspec.msgpack.decode(value) == {"v": 2, "r": "2-b", "d": True}


def test_a_document_with_too_many_leaves_is_the_only_one_that_suffers() -> None:
    revs = tuple(f"{number}-0123456789abcdef0123456789abcdef" for number in range(20_000, 0, -1))
    found = decode_change(b"a", encode_change(Change(id="a", revs=revs, leaf_version=7)))
    assert "20000 leaf revisions" in found.defect
    assert found.rev == revs[0]
    assert records.MAX_RECORD_BYTES < 2**20


def test_a_record_about_purges_comes_back() -> None:
    purge = PurgeRecord(purge_seq="3-g1A", recreated=True, missed=2, missed_at="3")
    assert decode_purge(encode_purge(purge)) == purge
    older = msgspec.msgpack.encode({"purge_seq": "3-g1A", "recreated": True, "missed": 2})
    assert decode_purge(older) == replace(purge, missed_at=""), "as it was written at first"


@pytest.mark.parametrize("purge_seq", ["3-g1AAA_b-", "3"])
def test_a_mark_leaves_the_number_of_purges_as_it_is(purge_seq: str) -> None:
    marked = records.mark_backs(purge_seq, 2)
    assert (count_purges(marked), records.order_purges(marked)) == ("3", (2, 3))
    assert records.mark_backs(purge_seq, 0) == purge_seq
    assert records.order_purges("") < records.order_purges(purge_seq) == (0, 3) < (2, 3)


def test_headers_tell_the_database_apart() -> None:
    assert make_headers("a/b", None) == [("src", "a/b"), ("idn", "")]
    known = DatabaseIdentity(instance_start_time="1700000000")
    assert make_headers("a/b", known) == [("src", "a/b"), ("idn", "1700000000")]
