"""Attachments: stubs, or small ones with their content."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from pillows.models import Change
from pillows.stages.triggers import AttachmentTrigger


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
