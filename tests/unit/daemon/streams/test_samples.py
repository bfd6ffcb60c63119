"""What a tap shows: keys and types, or values, in bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from daemon.streams.samples import MAX_SHOWN_BYTES, show_change, show_rows
from pillows.models import Change, DocumentRows


def change(raw: bytes | None, **more: Any) -> Change:
    return Change(
        id="a", revs=("2-x",), leaf_version=2, raw=None if raw is None else msgspec.Raw(raw), **more
    )


def rows(*given: Any, size_bytes: int = 0) -> DocumentRows:
    return DocumentRows(id="a", rev="2-x", leaf_version=2, rows={"case": given}, size_bytes=size_bytes)


RAW = b'{"name":"canary","n":1.5,"ok":true,"none":null,"tags":["canary",2],"deep":{"x":"canary"}}'


def test_values_are_masked_unless_they_are_asked_for():
    masked = show_change(change(RAW), values=False)
    assert masked == {
        "id": "a",
        "rev": "2-x",
        "deleted": False,
        "doc": {
            "name": "text",
            "n": "number",
            "ok": "boolean",
            "none": "null",
            "tags": ["text", "number"],
            "deep": {"x": "text"},
        },
    }
    assert show_change(change(RAW), values=True)["doc"] == msgspec.json.decode(RAW)


def test_rows_come_by_output_from_mappings_and_from_raw_json():
    shown = show_rows(rows({"name": "canary", "when": object()}, msgspec.Raw(b'{"n":1}')), values=False)
    assert shown == {
        "id": "a",
        "rev": "2-x",
        "rows": {"case": [{"name": "text", "when": "object"}, {"n": "number"}]},
    }


@pytest.mark.parametrize("raw", [b'{"a":', b"[" * 100_000])
def test_what_cannot_be_read_is_said_to_be_so(raw):
    assert show_change(change(raw), values=True)["doc"] == "not readable"


def test_large_documents_are_not_parsed():
    raw = b'{"a":"%s"}' % (b"x" * MAX_SHOWN_BYTES)
    assert show_change(change(raw), values=True)["doc"] == f"{len(raw):,} bytes, too large to show"
    assert "too large" in show_rows(rows({"a": 1}, size_bytes=10**6), values=True)["rows"]


def test_long_lists_texts_and_deep_values_are_cut():
    raw = msgspec.json.encode({"list": list(range(100)), "text": "x" * 1000})
    doc = show_change(change(raw), values=True)["doc"]
    assert doc["list"][-2:] == [19, "… 80 more"]
    assert len(doc["text"]) == 501
    deep = b"[" * 50 + b"]" * 50
    assert "…" in str(show_change(change(deep), values=True)["doc"])
    assert show_rows(rows(*[{"a": 1}] * 30), values=True)["rows"]["case"][-1] == "… 10 more"


def test_a_change_without_its_document_is_shown_by_its_id():
    assert show_change(change(None, deleted=True), values=True) == {
        "id": "a",
        "rev": "2-x",
        "deleted": True,
        "doc": None,
    }
