"""One pipeline from a CouchDB `_changes` feed to any number of targets, in data-flow order.

Two of its parts are useful on their own: `BulkPusher` writes documents in bulk, `ParallelWriter` writes
to several file-like objects at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pillows.standalone.bulk_pusher import BulkPusher
    from pillows.standalone.parallel_writer import ParallelWriter

__all__ = ["BulkPusher", "ParallelWriter"]

_HOMES = {
    "BulkPusher": "pillows.standalone.bulk_pusher",
    "ParallelWriter": "pillows.standalone.parallel_writer",
}


def __getattr__(name: str) -> Any:
    # When they are asked for: whoever imports one module of this package needs no HTTP client.
    if name not in _HOMES:
        raise AttributeError(f"module 'pillows' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - nothing else needs it here

    return getattr(import_module(_HOMES[name]), name)
