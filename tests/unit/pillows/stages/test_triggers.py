"""Triggers: attachments that are stubs or have content, and functions of the user's."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from pillows.errors import PermanentError, StoppedError
from pillows.models import Change
from pillows.stages.triggers import AttachmentTrigger, DocumentTrigger, PythonTrigger


def change(**body):
    return Change(
        id="a", revs=("2-b",), leaf_version=2, raw=msgspec.Raw(msgspec.json.encode({"_id": "a", **body}))
    )


def stub(length, **more):
    return {
        "content_type": "text/plain",
        "revpos": 1,
        "digest": "md5-x",
        "length": length,
        "stub": True,
        **more,
    }


@pytest.fixture
def trigger():
    asked = []

    def read(id, rev, name, max_bytes):
        asked.append((id, rev, name, max_bytes))
        return {"small.txt": b"hello"}.get(name)

    made: Any = AttachmentTrigger(lambda change: pytest.fail("fetched"), read, max_bytes=100)
    made.asked = asked
    return made


def test_a_small_attachment_comes_with_its_content_and_a_large_one_stays_a_stub(trigger):
    attachments = {"small.txt": stub(5), "large.bin": stub(101), "vanished.txt": stub(7)}
    document = trigger(change(n=1, _attachments=attachments))

    found = document.doc["_attachments"]
    assert base64.b64decode(found["small.txt"]["data"]) == b"hello"
    assert "stub" not in found["small.txt"]
    assert found["small.txt"]["content_type"] == "text/plain"
    assert (found["large.bin"], found["vanished.txt"]) == (stub(101), stub(7))
    assert trigger.asked == [("a", "2-b", "small.txt", 100), ("a", "2-b", "vanished.txt", 100)]
    assert document.doc["n"] == 1


@pytest.mark.parametrize(
    "body", [{}, {"text": '"_attachments"'}, {"_attachments": None}, {"note": "_attachments"}]
)
def test_a_document_without_attachments_stays_the_bytes_that_came(trigger, body):
    came = change(**body)
    assert trigger(came).raw is came.raw
    assert trigger.asked == []


def test_a_deleted_document_has_none(trigger):
    gone = Change(id="a", revs=("2-b",), leaf_version=2, deleted=True)
    assert trigger(gone).raw is None


def never(change):
    pytest.fail("fetched")


def test_g5_a_function_makes_the_document_of_a_change():
    def extract(change, read):
        return {"_id": change.id, "n": read()["n"] + 1}

    document = PythonTrigger(extract, DocumentTrigger(never))(change(n=1))
    assert (document.doc, document.id, document.rev) == ({"_id": "a", "n": 2}, "a", "2-b")
    assert not document.deleted


def test_g5_a_function_that_does_not_read_costs_no_fetch():
    unread = Change(id="a", revs=("2-b",), leaf_version=2)
    document = PythonTrigger(lambda change, read: {"rev": change.rev}, DocumentTrigger(never))(unread)
    assert (document.doc, document.leaf_version) == ({"rev": "2-b"}, 2)


def test_g5_none_is_a_deletion():
    document = PythonTrigger(lambda change, read: None, DocumentTrigger(never))(change(n=1))
    assert (document.deleted, document.raw) == (True, None)


def test_g5_what_is_deleted_by_now_has_no_document_whatever_the_function_makes_of_it():
    gone = Change(id="a", revs=("3-c",), leaf_version=3, deleted=True)
    read_gone = DocumentTrigger(lambda _: DocumentTrigger(never)(gone))
    unread = Change(id="a", revs=("2-b",), leaf_version=2)
    document = PythonTrigger(lambda change, read: {"was": read()}, read_gone)(unread)
    assert (document.deleted, document.rev, document.leaf_version) == (True, "3-c", 3)


def test_g5_a_newer_document_has_its_own_version():
    newer = DocumentTrigger(
        lambda _: DocumentTrigger(never)(
            Change(id="a", revs=("3-c",), leaf_version=3, raw=msgspec.Raw(b'{"n":3}'))
        )
    )
    unread = Change(id="a", revs=("2-b",), leaf_version=2)
    document = PythonTrigger(lambda change, read: read(), newer)(unread)
    assert (document.doc, document.leaf_version) == ({"n": 3}, 3)


def test_g5_a_function_changes_a_copy_of_the_document():
    shared = change(n=1)
    assert shared.doc == {"_id": "a", "n": 1}
    PythonTrigger(lambda change, read: read().pop("n") and {}, DocumentTrigger(never))(shared)
    assert shared.doc == {"_id": "a", "n": 1}


def test_g5_a_stop_while_it_reads_cannot_be_swallowed():
    def stopped(change):
        raise StoppedError

    def extract(change, read):
        try:
            return read()
        except Exception:  # noqa: BLE001 - as careless code does
            return {"n": "stale"}

    with pytest.raises(StoppedError):
        PythonTrigger(extract, DocumentTrigger(stopped))(Change(id="a", revs=("2-b",), leaf_version=2))


@pytest.mark.parametrize("returned", [[], "text", 1, {"n": float("nan")}])
def test_g5_what_is_not_a_document_is_refused(returned):
    with pytest.raises(PermanentError, match=r"trigger returned|JSON cannot hold it"):
        PythonTrigger(lambda change, read: returned, DocumentTrigger(never))(change(n=1))
