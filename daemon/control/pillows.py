"""Control calls that show, pause, resume and restart pillows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import structlog

from checkpoints import TailKey
from daemon.control.snapshot import Snapshots
from daemon.control.tails import Tails
from pillows.clock import Clock
from pillows.runtime.status import TailStatus

_log = structlog.get_logger("pillowd.operator")

#: Length of a token in a status.
SEQ_CHARACTERS = 64


class PillowCalls:
    """Shows, pauses, resumes and restarts pillows.

    Args:
        tails: the tails that can be named.
        snapshots: of their states.
        clock: for the uptime of the daemon.

    Attributes:
        listeners: where the daemon listens.
    """

    def __init__(self, tails: Tails, snapshots: Snapshots, *, clock: Clock) -> None:
        self.listeners: Sequence[Any] = ()
        self._tails = tails
        self._snapshots = snapshots
        self._supervisor = tails.supervisor
        self._clock = clock
        self._began_at = clock.monotonic()

    def status(self) -> dict[str, Any]:
        """Return the status of the daemon and of every tail."""
        running = self._supervisor is not None
        return {
            "running": running,
            "pid": os.getpid() if running else None,
            "up_seconds": self._clock.monotonic() - self._began_at if running else None,
            "pillows": [to_json(status) for status in self._tails.statuses()],
        }

    def list_page(self, *, state: str | None, limit: int, after: str) -> dict[str, Any]:
        """Return the state of the daemon, and a page of its tails in the order of their keys.

        Args:
            state: only tails in this state.
            limit: most tails of the page.
            after: `next` of the page before.
        """
        statuses = {key_of(each): each for each in self._snapshots.get().statuses}
        chosen = [key for key, each in statuses.items() if state in (None, each.state)]
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
            "listeners": [asdict(each) for each in self.listeners],
            "pillows": [to_json(statuses[key]) for key in page],
            "next": page[-1] if len(chosen) > limit else None,
        }

    def get(self, key: str, source: str | None = None) -> dict[str, Any]:
        """Return the state of one tail, two seconds old at most."""
        tail = self._tails.configured(key, source)
        found = (each for each in self._snapshots.get().statuses if key_of(each) == str(tail))
        return to_json(next(found))

    def pause(self, key: str) -> dict[str, Any]:
        """Stop a tail until `resume`, even when the daemon restarts."""
        tail = self._tails.configured(key)
        if self._supervisor is not None:
            self._supervisor.pause(tail)
        else:
            self._tails.state.pauses.add(tail)
        return self._log_call("pause", tail)

    def resume(self, key: str) -> dict[str, Any]:
        """End a pause."""
        tail = self._tails.configured(key)
        if self._supervisor is not None:
            self._supervisor.resume(tail)
        else:
            self._tails.state.pauses.discard(tail)
        return self._log_call("resume", tail)

    def restart(self, key: str) -> dict[str, Any]:
        """Restart a tail, also a failed one."""
        tail = self._tails.configured(key)
        if self._supervisor is None:
            raise ValueError("the daemon is not running. Remedy: `pillowd run`")
        self._supervisor.restart(tail)
        return self._log_call("restart", tail)

    def _log_call(self, what: str, tail: TailKey) -> dict[str, Any]:
        _log.info("pillow.told", pillow=str(tail), what=what)
        return to_json(self._tails.status(tail))


def key_of(status: TailStatus) -> str:
    """Return the key of a status' tail, as text."""
    return f"{status.pillow}@{status.source}"


def to_json(status: TailStatus) -> dict[str, Any]:
    """Return a status as JSON values. Tokens are shortened: those of 200 tails can be 1 MiB."""
    seq = status.seq
    if seq is not None and len(seq) > SEQ_CHARACTERS:
        seq = f"{seq[:SEQ_CHARACTERS]}…"
    return asdict(replace(status, seq=seq))
