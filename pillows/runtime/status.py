"""The status of a tail: its state, and the facts that `pillowd status` shows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    """The state of a tail. Logs and commands show these values."""

    STARTING = "starting"
    CATCHING_UP = "catching-up"
    LIVE = "live"
    BACKING_OFF = "backing-off"
    PAUSED = "paused"
    FAILED = "failed"
    STOPPED = "stopped"


class TailStatus(Struct, frozen=True, kw_only=True):
    """A tail's facts at one moment.

    Attributes:
        pillow, source: its key.
        state: its state.
        reason: the reason for the state, if it has one (what is retried, what failed and the remedy).
        seq: the saved position; None before the first.
        changes: changes taken since the tail was first started.
        pending: the server's number of changes that are not acknowledged; None if unknown.
        lag_seconds: seconds since every existing change was acknowledged: 0 at the head with nothing in
            flight. It grows while the tail is not at the head, for any reason. A tail that was never there
            counts from its first start in this process; None if it has none.
        changes_per_second: acknowledged changes, on average over the last 30 s; None if it does not run.
        seconds_to_go: until nothing is pending, at that rate and if nothing more is written; None if
            unknown, or nothing moves.
        epoch: the running epoch.
        pass_number: the epoch of the running pass; None when no pass is running.
        dead_letters: how many documents are stored as dead letters.
        restarts: restarts by the supervisor since the daemon started.
        last_byte_age_seconds: age of the last good byte from the source; None before the first.
        checkpoint_age_seconds: age of the last saved checkpoint; None before the first.
        pipeline_changed_at: wall-clock seconds since when rows of an older filter or transform
            stand in the target; None where none do.
        databases: state -> how many databases are in it; None for a pillow on one database.
    """

    pillow: str
    source: str
    state: State
    reason: str = ""
    seq: str | None = None
    changes: int = 0
    pending: int | None = None
    lag_seconds: float | None = None
    changes_per_second: float | None = None
    seconds_to_go: float | None = None
    epoch: int | None = None
    pass_number: int | None = None
    dead_letters: int = 0
    restarts: int = 0
    last_byte_age_seconds: float | None = None
    checkpoint_age_seconds: float | None = None
    pipeline_changed_at: float | None = None
    databases: Mapping[str, int] | None = None
