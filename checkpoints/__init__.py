"""Durable state without a network: stores that survive kill -9, and the checkpoints in them."""

from __future__ import annotations

from checkpoints.checkpoint import PASS_TO_BEGIN, Checkpoint, ConfigDigest, TailKey
from checkpoints.checkpoint_store import CheckpointStore, HistoryEntry
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
from checkpoints.finding import Finding
from checkpoints.maintenance import Repair, check, repair
from checkpoints.pod.pod import POD
from checkpoints.rpc.client import ControlClient
from checkpoints.rpc.server import Connection, ControlServer, TryAgain
from checkpoints.seq import Seq
from checkpoints.shared.pod import SharedPOD
from checkpoints.shared.service import export_store
from checkpoints.shared.tracker import SharedTracker
from checkpoints.tracker.tracker import Tracker

PersistentOrderedDict = POD
ProgressTracker = Tracker
SharedPersistentOrderedDict = SharedPOD
SharedProgressTracker = SharedTracker

__all__ = [
    "PASS_TO_BEGIN",
    "POD",
    "Checkpoint",
    "CheckpointMoved",
    "CheckpointStore",
    "ConfigDigest",
    "Connection",
    "ControlClient",
    "ControlServer",
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
    "TryAgain",
    "check",
    "export_store",
    "repair",
]
