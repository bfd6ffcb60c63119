"""Keep a document whose field does not fit the mapping: the field moves aside, the others are indexed.

A mapping decides by the first value whether a field is an object or a single value, and refuses documents
with the other. Only the text of the error names the field, so the fields of the document are searched for
that name; if none is named, all move. Nothing here waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from pillows.strict_json import run_deeply
from pillows.transports.common.search.encoder import Operation

#: The field for misfits: kept in the document, but not indexed.
UNINDEXED = "pillowd_unindexed"

#: Its definition in the mapping. Servers accept any value there, and do not parse it.
UNINDEXED_MAPPING: Mapping[str, object] = {"type": "object", "enabled": False}

#: How often fields of a document move aside before all that are left do.
MAX_ROUNDS = 5

_NAMED = re.compile(r"\[([^\[\]]*)\]")

_Fields = dict[str, msgspec.Raw]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Fields).decode


class Misfit(msgspec.Struct, frozen=True, gc=False):
    """An operation that a server refused.

    Attributes:
        operation: the write of a document.
        reason: what the server said.
        rounds: how often fields of the document have moved aside.
    """

    operation: Operation
    reason: str
    rounds: int = 0


def set_aside(misfit: Misfit) -> Operation | None:
    """Return the write with the misfit moved into `pillowd_unindexed`; None if there is no field to move."""
    action, _, source = misfit.operation.body.partition(b"\n")
    try:
        fields = run_deeply(lambda: _decode(source))
        aside = run_deeply(lambda: _decode(fields.pop(UNINDEXED))) if misfit.rounds else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # not valid JSON, which was the server's reason
    if not fields:
        return None
    named = {name for name in fields if _is_named(name, misfit.reason)}
    # The document has a field with our name already, so misfits cannot go there.
    if not named or misfit.rounds >= MAX_ROUNDS or UNINDEXED in fields:
        named = set(fields)
    aside |= {name: fields.pop(name) for name in sorted(named)}
    body = b"%b\n%b\n" % (action, _encode(fields | {UNINDEXED: aside}))
    return msgspec.structs.replace(misfit.operation, body=body)


def put_back(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored document with all fields where they were."""
    aside = source.get(UNINDEXED)
    if not isinstance(aside, Mapping):
        return source
    return {name: value for name, value in source.items() if name != UNINDEXED} | dict(aside)


def _is_named(field: str, reason: str) -> bool:
    """Return whether a reason names a field, a part of it or, for a field with dots, one of its parents."""
    return any(
        path == field or path.startswith(f"{field}.") or field.startswith(f"{path}.")
        for path in _NAMED.findall(reason)
    )
