"""Durable state without a network: stores that survive kill -9, and the checkpoints in them."""

from __future__ import annotations

from checkpoints.checkpoint import PASS_TO_BEGIN, Checkpoint, Digest, TailKey
from checkpoints.errors import (
    CheckpointMoved,
    IntegrityError,
    StoreClosed,
    StoreError,
    StoreLocked,
    StoreUnavailable,
    StoreWriteError,
)
from checkpoints.pod import POD
from checkpoints.seq import Seq
from checkpoints.store import CheckpointStore, HistoryEntry
from checkpoints.tracker import Tracker

__all__ = [
    "PASS_TO_BEGIN",
    "POD",
    "Checkpoint",
    "CheckpointMoved",
    "CheckpointStore",
    "Digest",
    "HistoryEntry",
    "IntegrityError",
    "Seq",
    "StoreClosed",
    "StoreError",
    "StoreLocked",
    "StoreUnavailable",
    "StoreWriteError",
    "TailKey",
    "Tracker",
]
