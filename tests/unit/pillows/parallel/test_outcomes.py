"""An outcome arrives from a worker as it was there, and its rows without a needless decoding."""

from __future__ import annotations

import datetime
import math
import pickle
from collections import defaultdict
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import Seq, TailKey
from pillows import strict_json
from pillows.dead_letters.dead_letter import DeadLetter, make_dead_letter
from pillows.models import Change, Document, DocumentRows
from pillows.parallel.outcomes import (
    Outcomes,
    SentDeadLetter,
    SentRows,
    decode_changes,
    decode_outcomes,
    encode_changes,
    encode_outcome,
    to_outcome,
)
from pillows.parallel.protocol import to_payload
from pillows.transports.common.columns import decode

TAIL = TailKey("cases", "couch/cases")
CHANGE = Change(id="a", revs=("1-x",), leaf_version=1, raw=msgspec.Raw(b'{"_id":"a"}'))


def there_and_back(outcome, *, change=CHANGE, as_json=True):
    sent = encode_outcome(TAIL, change, outcome, as_json=as_json)
    found = decode_outcomes(to_payload(Outcomes([sent], 1, 0, {"transform": 0.5}, 0.6)))
    assert (found.kept, found.filtered, found.seconds) == (1, 0, {"transform": 0.5})
    return to_outcome(TAIL, change, found.outcomes[0])


def rows_of(*rows, **more) -> DocumentRows:
    return DocumentRows(id="a", rev="2-y", leaf_version=3, rows={"cases": list(rows), "parts": ()}, **more)


def test_changes_arrive_as_they_were_sent():
    sent = [
        CHANGE,
        Change(id="ü/+\n", revs=("2-a", "1-b"), leaf_version=3, deleted=True, seq=Seq.of([7, "g1A"])),
        Change(id="x", revs=("1-a",), leaf_version=1, defect="It is too long."),
    ]
    found = decode_changes(encode_changes(sent))
    assert [(c.id, c.revs, c.leaf_version, c.deleted, c.seq, c.defect) for c in found] == [
        (c.id, c.revs, c.leaf_version, c.deleted, c.seq, c.defect) for c in sent
    ]
    assert [c.raw and bytes(c.raw) for c in found] == [c.raw and bytes(c.raw) for c in sent]


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), plain, max_size=4))
def test_rows_have_the_same_values_whether_they_come_as_json_or_not(row):
    (as_json,) = there_and_back(rows_of(row)).rows["cases"]
    (as_is,) = there_and_back(rows_of(row), as_json=False).rows["cases"]
    assert as_is == row
    assert decode(as_json) == row


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.10"),
        2**70,
        math.inf,
        {1: "a"},
        {1, 2},
        b"bytes",
        datetime.date(2026, 11, 29),
        datetime.datetime(2026, 11, 29, 10, 30, tzinfo=datetime.UTC),
        datetime.datetime(2026, 11, 29, 10, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime.timedelta(seconds=1),
        UUID(int=7),
        defaultdict(list, a=[1]),
        "half a pair \ud800",
    ],
    ids=repr,
)
def test_a_value_that_json_would_change_is_the_same_as_without_workers(value):
    """A target must accept or refuse a value alike, with workers and without."""
    (row,) = there_and_back(rows_of({"v": value})).rows["cases"]
    assert row == {"v": value}
    assert type(row["v"]) is type(value)


def test_rows_that_json_gives_back_are_not_decoded():
    (row,) = there_and_back(rows_of({"n": 1, "list": (1, 2.5, None)})).rows["cases"]
    assert isinstance(row, msgspec.Raw)
    assert strict_json.encode(row) == b'{"n":1,"list":[1,2.5,null]}'


def test_a_whole_document_is_not_sent_back():
    sent = encode_outcome(TAIL, CHANGE, rows_of(CHANGE.raw), as_json=True)
    assert b"_id" not in bytes(to_payload(sent))
    (row,) = to_outcome(TAIL, CHANGE, sent).rows["cases"]
    assert row is CHANGE.raw


def test_a_document_that_the_worker_fetched_is_sent_back():
    change = Change(id="a", revs=("1-x",), leaf_version=1)
    (row,) = there_and_back(rows_of(msgspec.Raw(b'{"n":1}')), change=change).rows["cases"]
    assert bytes(row) == b'{"n":1}'


def test_rows_and_their_versions_stay_the_same():
    found = there_and_back(rows_of({"n": 1}, {"n": 2}, size_bytes=77))
    assert (found.id, found.rev, found.leaf_version, found.size_bytes) == ("a", "2-y", 3, 77)
    assert len(found.rows["cases"]) == 2
    assert list(found.rows["parts"]) == []
    assert there_and_back(None) is None


def test_a_dead_letter_stays_the_same():
    letter = make_dead_letter(TAIL, CHANGE, "filter", ValueError("x"), with_text=True)
    assert there_and_back(letter) == letter


def test_rows_that_cannot_be_sent_are_a_dead_letter():
    letter = there_and_back(rows_of({"f": lambda: None}))
    assert isinstance(letter, DeadLetter)
    assert letter.stage == "transform"


class Unreadable:
    """A value of a user's class: it can be pickled, and to read it ends the process."""

    def __setstate__(self, state):
        raise SystemExit

    def __getstate__(self):
        return {"n": 1}


def test_a_value_of_a_user_s_class_is_a_dead_letter_in_the_worker_already():
    sent = encode_outcome(TAIL, CHANGE, rows_of({"v": Unreadable()}), as_json=True)
    assert isinstance(sent, SentDeadLetter)
    assert sent.stage == "transform"
    assert "A row has a value of tests.unit.pillows.parallel.test_outcomes.Unreadable." in sent.error


@pytest.mark.parametrize("pickled", [pickle.dumps({"v": Unreadable()}), b"nonsense", pickle.dumps(print)])
def test_rows_that_cannot_be_read_are_a_dead_letter_of_this_document_alone(pickled):
    sent = SentRows("1-x", 1, {"cases": [msgspec.msgpack.Ext(1, pickled)]}, 0)
    made = to_outcome(TAIL, CHANGE, sent)
    assert isinstance(made, DeadLetter)
    assert (made.id, made.stage) == ("a", "transform")


def test_a_document_without_rows_yet_is_no_outcome():
    document = Document(id="a", rev="1-x", leaf_version=1, deleted=False, raw=None)
    with pytest.raises(TypeError, match="Document"):
        encode_outcome(TAIL, CHANGE, document, as_json=True)
