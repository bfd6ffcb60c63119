"""Recover id, revisions and position of a row that is damaged or too long, so that reading continues.

CouchDB never sends invalid JSON, but proxies that rewrite it do: NaN, invalid UTF-8, half of a surrogate
pair.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from checkpoints import Seq
from pillows.models import Change, revision_number

#: Longest row that is parsed leniently as a whole, or as much of it as comes before its document.
_MAX_BYTES = 2**20

_NO_DOCUMENT = msgspec.Raw(b"{}")


def salvage_row(
    line: bytes, *, defect: str = "The feed sent its row as invalid JSON or invalid UTF-8."
) -> Change | None:
    """Return the change in a damaged row, for a dead letter; None if its id cannot be read.

    A deletion stays one if its id is undamaged: the rest of it is not needed.

    Args:
        line: the row.
        defect: why it is damaged.
    """
    head, _, _ = line.partition(b',"doc":')
    row = _parse_leniently(head + b"}") or _parse_leniently(line)
    if row is None:
        return None
    try:
        id = row["id"].encode("utf-8", "replace").decode()
        revs = tuple(leaf["rev"].encode("utf-8", "replace").decode() for leaf in row["changes"])
        version = sum(revision_number(rev) for rev in revs)
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    if version <= 0:
        return None
    if row.get("deleted") is True and id == row["id"] and "\N{REPLACEMENT CHARACTER}" not in id:
        return Change(id, revs, version, True, _salvage_seq(row.get("seq")))
    return Change(
        id,
        revs,
        version,
        seq=_salvage_seq(row.get("seq")),
        raw=_NO_DOCUMENT,
        defect=defect,
    )


def _salvage_seq(value: Any) -> Seq | None:
    try:
        return None if value is None else Seq.of(value)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None


def _parse_leniently(text: bytes) -> dict[str, Any] | None:
    if len(text) > _MAX_BYTES:
        return None
    try:
        row = json.loads(text.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
