"""One pipeline from a CouchDB `_changes` feed to any number of targets, in data-flow order.

Plugins need nothing but the exports of this module: to write a filter, a transform or a transport, and to
register it. Three more parts are useful on their own: `BulkPusher` writes documents in bulk,
`ParallelWriter` writes to several file-like objects at once, and `Coordinator` calls a function in worker
processes, for `Ranges` of keys that survive a crash.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checkpoints import Checkpoint, Seq, TailKey
    from pillows.errors import (
        AwayError,
        ConfigError,
        FatalError,
        FencedError,
        PermanentError,
        PillowError,
        RetryableError,
        StateLostError,
    )
    from pillows.models import (
        Batch,
        Change,
        Document,
        DocumentRows,
        Row,
        WriteResult,
        epoch_of,
        leaf_version_of,
        newest,
        write_version,
    )
    from pillows.observer import CompositeObserver, Observer
    from pillows.options import Duration, Options, OutputOptions, Secret, Size
    from pillows.parallel.coordinator import Coordinator, Finished
    from pillows.parallel.pool import WorkerLimits
    from pillows.parallel.ranges import Range, Ranges
    from pillows.registry import register
    from pillows.stages.filters import Filter
    from pillows.stages.transforms import ChunkedTransform, Transform
    from pillows.standalone.bulk_pusher import BulkOptions, BulkPusher
    from pillows.standalone.parallel_writer import ParallelWriter
    from pillows.transports.base import (
        AppendOnlyTransport,
        KeyedTransport,
        Stored,
        TargetState,
        Transport,
    )
    from pillows.transports.common.mirroring import Endpoint, MirrorSupport

__all__ = [
    "AppendOnlyTransport",
    "AwayError",
    "Batch",
    "BulkOptions",
    "BulkPusher",
    "Change",
    "Checkpoint",
    "ChunkedTransform",
    "CompositeObserver",
    "ConfigError",
    "Coordinator",
    "Document",
    "DocumentRows",
    "Duration",
    "Endpoint",
    "FatalError",
    "FencedError",
    "Filter",
    "Finished",
    "KeyedTransport",
    "MirrorSupport",
    "Observer",
    "Options",
    "OutputOptions",
    "ParallelWriter",
    "PermanentError",
    "PillowError",
    "Range",
    "Ranges",
    "RetryableError",
    "Row",
    "Secret",
    "Seq",
    "Size",
    "StateLostError",
    "Stored",
    "TailKey",
    "TargetState",
    "Transform",
    "Transport",
    "WorkerLimits",
    "WriteResult",
    "epoch_of",
    "leaf_version_of",
    "newest",
    "register",
    "write_version",
]

_MODULES = {
    "checkpoints": ("Checkpoint", "Seq", "TailKey"),
    "pillows.models": (
        "Batch",
        "Change",
        "Document",
        "DocumentRows",
        "Row",
        "WriteResult",
        "epoch_of",
        "leaf_version_of",
        "newest",
        "write_version",
    ),
    "pillows.observer": ("CompositeObserver", "Observer"),
    "pillows.options": ("Duration", "Options", "OutputOptions", "Secret", "Size"),
    "pillows.parallel.coordinator": ("Coordinator", "Finished"),
    "pillows.parallel.pool": ("WorkerLimits",),
    "pillows.parallel.ranges": ("Range", "Ranges"),
    "pillows.registry": ("register",),
    "pillows.stages.filters": ("Filter",),
    "pillows.stages.transforms": ("ChunkedTransform", "Transform"),
    "pillows.standalone.bulk_pusher": ("BulkOptions", "BulkPusher"),
    "pillows.standalone.parallel_writer": ("ParallelWriter",),
    "pillows.transports.base": (
        "AppendOnlyTransport",
        "KeyedTransport",
        "Stored",
        "TargetState",
        "Transport",
    ),
    "pillows.transports.common.mirroring": ("Endpoint", "MirrorSupport"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    # On demand: importing one module of this package must not import an HTTP client or a database driver.
    if name not in __all__:
        raise AttributeError(f"module 'pillows' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "pillows.errors")), name)
