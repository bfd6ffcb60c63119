"""The control API: all that can be asked of pillowd and done with it."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

from checkpoints import TailKey
from daemon.control.checkpoints import CheckpointCalls
from daemon.control.databases import DatabaseCalls
from daemon.control.dead_letters import DeadLetterCalls
from daemon.control.details import Details
from daemon.control.health import Health
from daemon.control.operations import Operations
from daemon.control.pillows import PillowCalls
from daemon.control.rebuilds import RebuildCalls
from daemon.control.repair import RepairCalls
from daemon.control.running import RunningDaemon
from daemon.control.snapshot import Snapshots
from daemon.control.tails import Tails
from daemon.state_dir import StateDir
from daemon.streams.senders import EventSource
from pillows.clock import Clock

#: Libraries whose versions a report of a defect needs.
LIBRARIES = ("gevent", "greenlet", "requests", "urllib3", "psycopg", "elasticsearch", "pydantic", "flask")


class ControlApi:
    """Everything that can be asked of pillowd, and done with it: what the handlers of the HTTP API call.

    Args:
        keys: the configured tails.
        state: the open state directory.
        clock: for ages and timestamps.
        daemon: the running daemon; None if the calls work on the files alone.
        repair: sends documents of a stopped tail through its pipeline again.
        explain: returns the problem document of an error.

    Attributes:
        clock: as given.
        tails: finds tails by name.
        audit: the audit log.
        snapshots: the states of all tails; numbers in it are one second old at most.
        pillows, databases, checkpoints, dead_letters, repair, rebuilds: the calls by concern.
        backfills: documents that are sent again.
        operations: work that takes longer than a request.
        health: the checks of the running daemon; None without one.
        events, taps: the streams of the running daemon; None without one.
        reloader, logs, verification: of the running daemon; None without one.
        metrics: what `/metrics` serves; None where nothing is counted.
        requests: the number of HTTP requests by operation, method and status.
    """

    def __init__(
        self,
        *,
        keys: Collection[TailKey],
        state: StateDir,
        clock: Clock,
        daemon: RunningDaemon | None,
        repair: Callable[[TailKey, Sequence[str]], None] | None = None,
        explain: Callable[[Exception], Any] = str,
    ) -> None:
        self.clock = clock
        self._daemon = daemon
        supervisor = daemon.supervisor if daemon else None
        observers = daemon.observers if daemon else None
        self.reloader = daemon.reloader if daemon else None
        self.logs = daemon.logs if daemon else None
        self.verification = daemon.verification if daemon else None
        self.taps = observers.taps if observers else None
        self.metrics = observers.metrics if observers else None
        self.requests: Counter[tuple[str, str, int]] = Counter()
        shared = daemon.shared if daemon else None
        self.tails = tails = Tails(
            keys, state=state, clock=clock, supervisor=supervisor, are_shared=shared is not None
        )
        self.audit = state.audit
        self.snapshots = Snapshots(
            tails.statuses, tails.list_keys, clock, lambda: observers.history.entered if observers else 0
        )
        self.databases = DatabaseCalls(tails, clock=clock)
        details: Details | None = None
        self.events: EventSource | None = None
        if daemon is not None and observers is not None:
            details = Details(
                tails.describe,
                observers.history,
                observers.transports,
                daemon.list_transports,
                self.databases.list_worst,
            )
            self.events = EventSource(self.snapshots.get, details.of, observers.events, clock)
        self.pillows = PillowCalls(
            tails, self.snapshots, clock=clock, details=details, listeners=daemon.listeners if daemon else ()
        )
        self.checkpoints = CheckpointCalls(tails, self.snapshots, clock=clock, shared=shared)
        self.dead_letters = DeadLetterCalls(tails)
        hold_reloads = self.reloader.hold_off if self.reloader else nullcontext
        self.repair = RepairCalls(tails, repair, hold_reloads, clock=clock)
        self.rebuilds = RebuildCalls(tails, self.snapshots, daemon.rebuilder if daemon else None)
        self.backfills = state.backfills
        self.operations = Operations(clock, explain)
        self.health = None if supervisor is None else Health(supervisor, clock)

    def dump_config(self) -> dict[str, Any]:
        """Return the configuration in effect, with its secrets masked; empty without a running daemon."""
        return self._daemon.dump_config() if self._daemon else {}

    def describe_version(self) -> dict[str, Any]:
        """Return the versions of pillowd and its libraries, and the digest of the configuration."""
        return {
            "version": version("pillowd"),
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "config_digest": self._daemon.digest_config() if self._daemon else "",
        }
