"""Merge the statuses of a pillow's partitions into one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec.structs import replace

from checkpoints import TailKey
from pillows.runtime.status import State, TailStatus

#: Why a partition counts as starting whose owner is unknown, silent or stuck.
_SILENT = "no daemon reports it"

T = TypeVar("T")

#: The states, from the best to the worst. A pillow has the state of its worst partition.
_ORDER = (
    State.STOPPED,
    State.PAUSED,
    State.LIVE,
    State.CATCHING_UP,
    State.STARTING,
    State.BACKING_OFF,
    State.FAILED,
)


def merge_statuses(
    key: TailKey, here: Mapping[int, TailStatus], elsewhere: Mapping[int, TailStatus], count: int
) -> TailStatus:
    """Return the status of a pillow. A partition that no daemon has reported counts as starting.

    Args:
        key: the pillow's.
        here: partition -> status, for the partitions of this daemon.
        elsewhere: partition -> status, as reported by the other daemons.
        count: how many partitions there were when they were last counted; 0 if they were not.
    """
    told = {**elsewhere, **here}
    if not told:
        return TailStatus(
            pillow=key.pillow, source=key.source, state=State.STARTING, reason="waits for partitions", seq=""
        )
    silent = TailStatus(pillow=key.pillow, source=key.source, state=State.STARTING, reason=_SILENT)
    known = {number: told.get(number, silent) for number in range(max(count - 1, *told) + 1)}
    statuses = list(known.values())
    worst = max(known.items(), key=lambda each: _ORDER.index(each[1].state))
    return TailStatus(
        pillow=key.pillow,
        source=key.source,
        state=worst[1].state,
        reason=_describe(*worst, here=len(here), count=len(known)),
        seq=" ".join(f"{number}:{each.seq or '-'}" for number, each in sorted(known.items())),
        changes=sum(each.changes for each in statuses),
        pending=_add(each.pending for each in statuses),
        lag_seconds=_greatest(each.lag_seconds for each in statuses),
        changes_per_second=_add(each.changes_per_second for each in statuses),
        seconds_to_go=_greatest(each.seconds_to_go for each in statuses),
        epoch=_greatest(each.epoch for each in statuses),
        pass_number=_greatest(each.pass_number for each in statuses),
        dead_letters=sum(each.dead_letters for each in statuses),
        restarts=sum(each.restarts for each in statuses),
        last_byte_age_seconds=_greatest(each.last_byte_age_seconds for each in statuses),
        checkpoint_age_seconds=_greatest(each.checkpoint_age_seconds for each in statuses),
        pipeline_changed_at=_greatest(each.pipeline_changed_at for each in statuses),
    )


def limit_by_reader(status: TailStatus, reader: TailStatus | None) -> TailStatus:
    """Return a pillow's status as far as its reader allows: what that has not read is pending, too.

    Args:
        status: of the pillow.
        reader: the reader's status; None if no daemon reported it recently.
    """
    if reader is None:
        return _limit(status, State.BACKING_OFF, "no daemon reads its database into the topic")
    status = replace(
        status,
        pending=_add([status.pending, reader.pending]),
        lag_seconds=_greatest([status.lag_seconds, reader.lag_seconds]),
        seconds_to_go=None if reader.pending else status.seconds_to_go,
    )
    if reader.state in (State.BACKING_OFF, State.FAILED):
        return _limit(status, reader.state, f"its database is not read into the topic: {reader.reason}")
    return _limit(status, reader.state, f"{status.reason}; its database is still read into the topic")


def _limit(status: TailStatus, state: State, reason: str) -> TailStatus:
    """Return a status with another state and its reason, if that state is worse."""
    if status.state in (State.STOPPED, State.PAUSED) or _ORDER.index(status.state) >= _ORDER.index(state):
        return status
    return replace(status, state=state, reason=reason)


def _describe(number: int, worst: TailStatus, *, here: int, count: int) -> str:
    """Return the reason of the worst partition; without one, the number of partitions here."""
    if worst.reason:
        return f"partition {number}: {worst.reason}"
    return f"{here} of {count} partitions here"


def _add(values: Iterable[T | None]) -> T | None:
    """Return the sum; None if a value is unknown."""
    found = list(values)
    if any(each is None for each in found):
        return None
    return sum(found)  # type: ignore[arg-type, return-value]


def _greatest(values: Iterable[T | None]) -> T | None:
    found = [each for each in values if each is not None]
    return max(found, default=None)  # type: ignore[type-var]
