"""The calls about pillows themselves: how they are, and whether they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import structlog

from checkpoints import TailKey
from daemon.control.tails import Tails
from pillows.clock import Clock
from pillows.runtime.status import TailStatus

_log = structlog.get_logger("pillowd.operator")

#: So much of a token is shown in a status.
SEQ_CHARACTERS = 64


class PillowCalls:
    """Shows pillows, and has them stop and start.

    Args:
        tails: what there is.
        clock: for how long the daemon has been up.
    """

    def __init__(self, tails: Tails, *, clock: Clock) -> None:
        self._tails = tails
        self._supervisor = tails.supervisor
        self._clock = clock
        self._began_at = clock.monotonic()

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """Every call by its name."""
        return {
            "status": self.status,
            "pause": self.pause,
            "resume": self.resume,
            "restart": self.restart,
        }

    def status(self) -> dict[str, Any]:
        """The facts of the daemon and of every tail."""
        running = self._supervisor is not None
        return {
            "running": running,
            "pid": os.getpid() if running else None,
            "up_seconds": self._clock.monotonic() - self._began_at if running else None,
            "pillows": [shown(status) for status in self._tails.statuses()],
        }

    def pause(self, key: str) -> dict[str, Any]:
        """Stops a tail until `resume`, also over restarts of the daemon."""
        tail = self._tails.configured(key)
        if self._supervisor is not None:
            self._supervisor.pause(tail)
        else:
            self._tails.state.pauses.add(tail)
        return self._told("pause", tail)

    def resume(self, key: str) -> dict[str, Any]:
        """Ends a pause."""
        tail = self._tails.configured(key)
        if self._supervisor is not None:
            self._supervisor.resume(tail)
        else:
            self._tails.state.pauses.discard(tail)
        return self._told("resume", tail)

    def restart(self, key: str) -> dict[str, Any]:
        """Stops a tail and starts it afresh; revives a failed one."""
        tail = self._tails.configured(key)
        if self._supervisor is None:
            raise ValueError("the daemon is not running. Remedy: `pillowd run`")
        self._supervisor.restart(tail)
        return self._told("restart", tail)

    def _told(self, what: str, tail: TailKey) -> dict[str, Any]:
        _log.info("pillow.told", pillow=str(tail), what=what)
        return shown(self._tails.status(tail))


def shown(status: TailStatus) -> dict[str, Any]:
    """A status as JSON values. Tokens are cut: those of 200 tails can be 1 MiB, `checkpoint get` has them."""
    seq = status.seq
    if seq is not None and len(seq) > SEQ_CHARACTERS:
        seq = f"{seq[:SEQ_CHARACTERS]}…"
    return asdict(replace(status, seq=seq))
