"""A document as people have them: nested, with lists, with a null."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from pillows.models import Document

CASE = {
    "_id": "c1",
    "_rev": "1-a",
    "name": "Ada",
    "ssn": "078-05-1120",
    "born": "1990-03-01T10:00:00Z",
    "address": {"city": "London", "zip": "N1", "owner": {"name": "Bob", "phone": "1"}},
    "visits": [
        {"on": "2026-01-02", "note": "private", "by": {"name": "Cy"}},
        {"on": "2026-01-09", "note": "private", "by": {"name": "Di"}},
    ],
    "tags": ["a", "b"],
    "nothing": None,
}


def case() -> dict[str, Any]:
    """Return a copy to change."""
    return copy.deepcopy(CASE)


def document(body: Any = None) -> Document:
    """Return a document with this body, the case unless it is given."""
    body = case() if body is None else body
    return Document(
        id=body.get("_id", "x"),
        rev="1-a",
        leaf_version=1,
        deleted=False,
        raw=msgspec.Raw(msgspec.json.encode(body)),
    )
