"""Decide the next step of a rebuild from its record and the state of the other build's tail. Pure."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from daemon.rebuilds.record import KEPT, Rebuild, RebuildState
from pillows.runtime.status import State, TailStatus

#: Wait before a comparison that failed, or found differences, is repeated.
VERIFY_AGAIN_SECONDS = 300.0


class Step(StrEnum):
    """An action of a rebuild."""

    BEGIN_AGAIN = "begin-again"
    VERIFY = "verify"
    SWITCH = "switch"
    DROP = "drop"


#: In these states the unfinished step comes first.
_UNFINISHED = {RebuildState.SWITCHING: Step.SWITCH, RebuildState.DROPPING: Step.DROP}


class NextStep(Struct, frozen=True, kw_only=True):
    """The decision.

    Attributes:
        step: the action; None to wait.
        reason: why the rebuild waits, and the remedy; "" if it does not wait.
    """

    step: Step | None = None
    reason: str = ""


def find_next_step(
    rebuild: Rebuild, other: TailStatus | None, *, now: float, verified_at: float | None = None
) -> NextStep:
    """Return the next step.

    Args:
        rebuild: the record of a pillow with a second build.
        other: the status of the other build's tail; None if it has no tail, as its definition or code no
            longer exists.
        now: wall-clock seconds.
        verified_at: wall-clock seconds of the last comparison that failed or found differences.
    """
    if (step := _UNFINISHED.get(rebuild.state)) is not None:
        return NextStep(step=step)
    if rebuild.state in KEPT:
        return _find_step_of_kept(rebuild, other, now)
    if other is None or other.pipeline_changed_at is not None or not is_ready(other):
        return _find_step_of_unready(other)
    if rebuild.state is not RebuildState.READY:
        is_due = verified_at is None or not 0 <= now - verified_at < VERIFY_AGAIN_SECONDS
        return NextStep(step=Step.VERIFY if is_due else None, reason=rebuild.failure)
    waits = rebuild.switch == "manual" and not rebuild.wanted
    return NextStep(step=None if waits else Step.SWITCH, reason=rebuild.failure)


def is_ready(other: TailStatus) -> bool:
    """Return whether a build is up to date, except for changes that are arriving now."""
    return other.state is State.LIVE and other.pass_number is None


def _find_step_of_unready(other: TailStatus | None) -> NextStep:
    if other is None:
        reason = "its definition has changed. Remedy: `pillowd rebuild cancel KEY`, then rebuild again"
        return NextStep(reason=reason)
    if other.pipeline_changed_at is not None:
        return NextStep(step=Step.BEGIN_AGAIN)
    return NextStep(reason=other.reason if other.state in (State.FAILED, State.PAUSED) else "")


def _find_step_of_kept(rebuild: Rebuild, other: TailStatus | None, now: float) -> NextStep:
    if rebuild.wanted:
        if other is not None and is_ready(other):
            return NextStep(step=Step.SWITCH)
        return NextStep(reason=other.reason if other is not None else "")
    if now >= rebuild.changed_at + rebuild.keep_seconds:
        return NextStep(step=Step.DROP)
    if other is None:
        return NextStep(
            reason="it is not up to date: its definition or code no longer exists. Remedy: write the former "
            "definition under `next:`, then `pillowd reload`; or `pillowd rebuild drop KEY`"
        )
    return NextStep(reason=other.reason if other.state is State.FAILED else "")
