"""The status of a tail: its state, and the facts that `pillowd status` shows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The state of a tail. Logs and commands show these values."""

    STARTING = "starting"
    CATCHING_UP = "catching-up"
    LIVE = "live"
    BACKING_OFF = "backing-off"
    PAUSED = "paused"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TailStatus:
    """A tail's facts at one moment.

    Attributes:
        pillow, source: its key.
        state: its state.
        reason: why, where the state needs one (what is retried, what failed and the remedy).
        seq: the saved position; None before the first.
        changes: changes taken since the tail was first started.
        pending: the server's number of changes that are not acknowledged; None if unknown.
        epoch: the running epoch.
        pass_number: the epoch of the running pass; None when no pass is running.
        dead_letters: how many documents are stored as dead letters.
        restarts: restarts by the supervisor since the daemon started.
        last_byte_age_seconds: age of the last good byte from the source; None before the first.
        checkpoint_age_seconds: age of the last saved checkpoint; None before the first.
        pipeline_changed_at: wall-clock seconds since when rows of an older filter or transform
            stand in the target; None where none do.
    """

    pillow: str
    source: str
    state: State
    reason: str = ""
    seq: str | None = None
    changes: int = 0
    pending: int | None = None
    epoch: int | None = None
    pass_number: int | None = None
    dead_letters: int = 0
    restarts: int = 0
    last_byte_age_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    pipeline_changed_at: float | None = None
