"""Control calls that show, pause, resume and restart pillows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import structlog
from gevent.event import Event

from checkpoints import TailKey
from daemon.control.details import Details
from daemon.control.snapshot import Snapshot, Snapshots
from daemon.control.tails import Tails
from daemon.errors import ConflictError, NotInTimeError
from daemon.supervision.supervisor import Supervisor
from pillows.clock import Clock
from pillows.runtime.status import State, TailStatus

_log = structlog.get_logger("pillowd.operator")

#: The requests of an operator for a tail, and the states that fulfil each.
Wish = Literal["pause", "resume", "stop", "restart"]
_GOES = frozenset({State.CATCHING_UP, State.LIVE, State.BACKING_OFF, State.FAILED})
REACHED: Mapping[Wish, frozenset[State]] = {
    "pause": frozenset({State.PAUSED, State.FAILED}),
    "stop": frozenset({State.STOPPED, State.FAILED}),
    "resume": _GOES,
    "restart": _GOES | {State.STOPPED},
}
_POLL_SECONDS = 0.1


class PillowCalls:
    """Shows, pauses, resumes and restarts pillows.

    Args:
        tails: finds tails by name.
        snapshots: of their states.
        clock: for the uptime of the daemon.
        details: all facts of a tail; None if the calls work on the files alone.
        listeners: where the daemon listens.
    """

    def __init__(
        self,
        tails: Tails,
        snapshots: Snapshots,
        *,
        clock: Clock,
        details: Details | None = None,
        listeners: Sequence[Any] = (),
    ) -> None:
        self._listeners = listeners
        self._details = details
        self._tails = tails
        self._snapshots = snapshots
        self._supervisor = tails.supervisor
        self._clock = clock
        self._began_at = clock.monotonic()
        self._shown: tuple[Snapshot, dict[str, dict[str, Any]]] | None = None

    def list_page(self, *, state: str | None, limit: int, after: str) -> dict[str, Any]:
        """Return the state of the daemon, and a page of its tails in the order of their keys.

        Args:
            state: only tails in this state.
            limit: most tails of the page.
            after: `next` of the page before.
        """
        shown = self._show_all()
        chosen = [key for key, each in shown.items() if state in (None, each["state"])]
        if after:
            chosen = (
                chosen[chosen.index(after) + 1 :] if after in chosen else [k for k in chosen if k > after]
            )
        page = chosen[:limit]
        running = self._supervisor is not None
        return {
            "running": running,
            "pid": os.getpid() if running else None,
            "up_seconds": self._clock.monotonic() - self._began_at if running else None,
            "listeners": msgspec.to_builtins(self._listeners),
            "unfinished_acts": self._tails.state.audit.unfinished,
            "pillows": [shown[key] for key in page],
            "next": page[-1] if len(chosen) > limit else None,
        }

    def get(self, key: str, source: str | None = None) -> dict[str, Any]:
        """Return all that is known of one tail, two seconds old at most."""
        tail = self._tails.configured(key, source)
        if self._tails.find_pattern(tail) is not None:
            return self._tails.describe(self._tails.status(tail))
        found = (each for each in self._snapshots.get().statuses if key_of(each) == str(tail))
        status = next(found)
        return self._details.to_json(status) if self._details else self._tails.describe(status)

    def pause(self, tail: TailKey) -> None:
        """Stop a tail until `resume`, even when the daemon restarts."""
        if self._supervisor is not None and self._tails.find_pattern(tail) is None:
            self._supervisor.pause(tail)
        else:
            self._tails.state.pauses.add(tail)
            if (databases := self._tails.find_databases(tail)) is not None:
                databases.pause(tail.database)
        self._note("pause", tail)

    def resume(self, tail: TailKey) -> None:
        """End a pause, or a stop."""
        if self._supervisor is not None and self._tails.find_pattern(tail) is None:
            self._supervisor.resume(tail)
        else:
            self._tails.state.pauses.discard(tail)
            if (databases := self._tails.find_databases(tail)) is not None:
                databases.resume(tail.database)
        self._note("resume", tail)

    def stop(self, tail: TailKey) -> None:
        """Stop a tail until `resume`, or until the daemon restarts.

        Raises:
            ConflictError: no daemon runs, or the tail is paused.
        """
        supervisor = self._need_daemon()
        self._refuse_paused(tail)
        if (pattern := self._tails.find_pattern(tail)) is not None:
            raise ConflictError(
                f"{tail} is one database of {pattern}, which runs or stops as a whole",
                remedy=f"`pillowd pause {tail}`",
            )
        supervisor.stop(tail)
        self._note("stop", tail)

    def restart(self, tail: TailKey) -> None:
        """Restart a tail, also a failed one.

        Raises:
            ConflictError: no daemon runs, or the tail is paused.
        """
        supervisor = self._need_daemon()
        self._refuse_paused(tail)
        if self._tails.find_pattern(tail) is None:
            supervisor.restart(tail)
        elif (databases := self._tails.find_databases(tail)) is not None:
            databases.resume(tail.database)
        self._note("restart", tail)

    def restart_all(self, *, only_failed: bool) -> list[str]:
        """Restart all tails that are not paused, or those that have failed, and return their keys.

        Raises:
            ConflictError: no daemon runs.
        """
        supervisor = self._need_daemon()
        going = [key for key in supervisor.keys if key not in self._tails.state.pauses]
        chosen = [k for k in going if not only_failed or supervisor.status(k).state is State.FAILED]
        for tail in chosen:
            self.restart(tail)
        return [str(tail) for tail in chosen]

    def wait_until(self, wish: Wish, tail: TailKey, seconds: float) -> dict[str, Any]:
        """Return the state of a tail once it is as wished.

        Raises:
            NotInTimeError: the tail has not reached the state in time.
        """
        give_up_at = self._clock.monotonic() + seconds
        while (status := self._tails.status(tail)).state not in REACHED[wish] or self._is_draining(tail):
            if self._supervisor is None:
                break  # nothing will change by itself
            if self._clock.monotonic() >= give_up_at:
                raise NotInTimeError(
                    f"{tail} is still {status.state} {seconds:g} s after the request to {wish}",
                    remedy=f"follow it with `pillowd status --watch`; the log shows what {tail} does",
                )
            self._clock.wait(Event(), _POLL_SECONDS)
        return self._tails.describe(status)

    def _is_draining(self, tail: TailKey) -> bool:
        """Return whether a run from before the request still ends, so that its state does not count yet."""
        if self._tails.find_pattern(tail) is not None:
            databases = self._tails.find_databases(tail)
            return databases is not None and databases.is_active(tail.database)
        return self._supervisor is not None and self._supervisor.is_draining(tail)

    def describe(self, tail: TailKey) -> dict[str, Any]:
        """Return the state of a tail as it is now."""
        return self._tails.describe(self._tails.status(tail))

    def _show_all(self) -> dict[str, dict[str, Any]]:
        """Return the states of all tails as JSON values by their keys, made once for each snapshot."""
        snapshot = self._snapshots.get()
        if self._shown is None or self._shown[0] is not snapshot:
            self._shown = snapshot, {key_of(each): self._tails.describe(each) for each in snapshot.statuses}
        return self._shown[1]

    def _need_daemon(self) -> Supervisor:
        if self._supervisor is None:
            raise ConflictError("the daemon is not running", remedy="`pillowd run`")
        return self._supervisor

    def _refuse_paused(self, tail: TailKey) -> None:
        if tail in self._tails.state.pauses:
            raise ConflictError(f"{tail} is paused", remedy=f"`pillowd resume {tail}` ends that")

    def _note(self, what: str, tail: TailKey) -> None:
        _log.info("operator.requested", pillow=str(tail), what=what)
        self._snapshots.forget()


def key_of(status: TailStatus) -> str:
    """Return the key of a status' tail, as text."""
    return f"{status.pillow}@{status.source}"
