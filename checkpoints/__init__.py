"""Durable state on one machine, and calls between its processes.

Stores that survive kill -9 and power failures: `CheckpointStore` for the daemon's checkpoints, `POD` (a
persistent dictionary) and `Tracker` (a persistent to-do list), with tastypy's interface and files. One
process owns a store. `SharedPOD` and `SharedTracker` let others use it over `RpcServer` and `RpcClient`,
remote calls on a unix socket.

The daemon uses the checkpoint store. All else is for programs that use these stores directly.
"""

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
from checkpoints.rpc.client import RpcClient
from checkpoints.rpc.server import Connection, RpcServer, TryAgain
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
    "RpcClient",
    "RpcServer",
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
