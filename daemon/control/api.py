"""The control API: all that can be asked of pillowd and done with it."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from checkpoints import TailKey
from daemon.control.checkpoints import CheckpointCalls
from daemon.control.dead_letters import DeadLetterCalls
from daemon.control.health import Health
from daemon.control.operations import Operations
from daemon.control.pillows import PillowCalls
from daemon.control.repair import RepairCalls
from daemon.control.snapshot import Snapshots
from daemon.control.tails import Tails
from daemon.state_dir import StateDir
from daemon.streams.senders import EventSource
from daemon.streams.taps import Taps
from daemon.supervision.supervisor import Supervisor
from pillows.clock import Clock

if TYPE_CHECKING:  # commands on the files need neither
    from daemon.logs.setup import Logs
    from daemon.metrics.metrics import Metrics
    from daemon.reload.reloader import Reloader
    from daemon.verification.runner import VerifyRunner

#: Libraries whose versions a report of a defect needs.
LIBRARIES = ("gevent", "greenlet", "requests", "urllib3", "psycopg", "elasticsearch", "pydantic", "flask")


class ControlApi:
    """Everything that can be asked of pillowd, and done with it: what the handlers of the HTTP API call.

    Args:
        keys: the configured tails.
        state: the open state directory.
        clock: for ages and timestamps.
        supervisor: of the running daemon; None if the calls work on the files alone.
        repair: sends documents of a stopped tail through its pipeline again.
        explain: returns the problem document of an error.

    Attributes:
        clock: as given.
        tails: the tails that can be named.
        audit: the audit log.
        snapshots: the states of all tails, one second old at most.
        pillows, checkpoints, dead_letters, repair: the calls by concern.
        operations: work that takes longer than a request.
        health: the checks of the running daemon; None without one.
        events, taps: the streams of the running daemon; None without one.
        reloader, logs, verification: of the running daemon; None without one.
        metrics: what `/metrics` serves; None where nothing is counted.
        requests: the number of HTTP requests by operation, method and status.
        get_config_digest: returns the digest of the configuration in effect.
        effective_config: returns the configuration in effect, with its secrets masked.
    """

    def __init__(
        self,
        *,
        keys: Collection[TailKey],
        state: StateDir,
        clock: Clock,
        supervisor: Supervisor | None,
        repair: Callable[[TailKey, Sequence[str]], None] | None = None,
        explain: Callable[[Exception], Any] = str,
    ) -> None:
        self.clock = clock
        self.tails = tails = Tails(keys, state=state, clock=clock, supervisor=supervisor)
        self.audit = state.audit
        self.snapshots = Snapshots(tails.statuses, clock)
        self.pillows = PillowCalls(tails, self.snapshots, clock=clock)
        self.checkpoints = CheckpointCalls(tails, self.snapshots, clock=clock)
        self.dead_letters = DeadLetterCalls(tails)
        self.repair = RepairCalls(tails, repair, clock=clock)
        self.operations = Operations(clock, explain)
        self.health = None if supervisor is None else Health(supervisor, clock)
        self.events: EventSource | None = None
        self.taps: Taps | None = None
        self.reloader: Reloader | None = None
        self.logs: Logs | None = None
        self.verification: VerifyRunner | None = None
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.metrics: Metrics | None = None
        self.get_config_digest: Callable[[], str] = str
        self.effective_config: Callable[[], dict[str, Any]] = dict

    def describe_version(self) -> dict[str, Any]:
        """Return the versions of pillowd and its libraries, and the digest of the configuration."""
        return {
            "version": version("pillowd"),
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "config_digest": self.get_config_digest(),
        }
