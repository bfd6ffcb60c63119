"""Durable state without a network: stores that survive kill -9, and the checkpoints in them."""

from __future__ import annotations

from checkpoints.checkpoint import PASS_TO_BEGIN, Checkpoint, Digest, TailKey
from checkpoints.client import ControlClient
from checkpoints.errors import (
    CheckpointMoved,
    DuplicateKeyError,
    IntegrityError,
    MalformedMessage,
    MessageTooLarge,
    NewerFormat,
    RemoteError,
    StoreClosed,
    StoreError,
    StoreLocked,
    StoreUnavailable,
    StoreWriteError,
)
from checkpoints.pod import POD
from checkpoints.repair import Repair, check, repair
from checkpoints.scan import Finding
from checkpoints.seq import Seq
from checkpoints.server import Busy, ControlServer, Session
from checkpoints.service import share
from checkpoints.shared import SharedPOD
from checkpoints.shared_tracker import SharedTracker
from checkpoints.store import CheckpointStore, HistoryEntry
from checkpoints.tracker import Tracker

PersistentOrderedDict = POD
ProgressTracker = Tracker
SharedPersistentOrderedDict = SharedPOD
SharedProgressTracker = SharedTracker

__all__ = [
    "PASS_TO_BEGIN",
    "POD",
    "Busy",
    "Checkpoint",
    "CheckpointMoved",
    "CheckpointStore",
    "ControlClient",
    "ControlServer",
    "Digest",
    "DuplicateKeyError",
    "Finding",
    "HistoryEntry",
    "IntegrityError",
    "MalformedMessage",
    "MessageTooLarge",
    "NewerFormat",
    "PersistentOrderedDict",
    "ProgressTracker",
    "RemoteError",
    "Repair",
    "Seq",
    "Session",
    "SharedPOD",
    "SharedPersistentOrderedDict",
    "SharedProgressTracker",
    "SharedTracker",
    "StoreClosed",
    "StoreError",
    "StoreLocked",
    "StoreUnavailable",
    "StoreWriteError",
    "TailKey",
    "Tracker",
    "check",
    "repair",
    "share",
]
