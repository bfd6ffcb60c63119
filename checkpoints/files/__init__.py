"""Files and processes: durable replacement, blocking calls, forks."""

from __future__ import annotations

from checkpoints.files.blocking import call_safely, run_blocking
from checkpoints.files.directory import Directory, replace_file, sync_directory
from checkpoints.files.fork_safety import register_for_fork

__all__ = [
    "Directory",
    "call_safely",
    "register_for_fork",
    "replace_file",
    "run_blocking",
    "sync_directory",
]
