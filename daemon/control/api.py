"""The control API: every call of the command, by its name."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from checkpoints import TailKey
from daemon.control.checkpoints import CheckpointCalls
from daemon.control.dead_letters import DeadLetterCalls
from daemon.control.health import Health
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
    from daemon.reload.reloader import Reloader

#: Libraries whose versions a report of a defect needs.
LIBRARIES = ("gevent", "greenlet", "requests", "urllib3", "psycopg", "elasticsearch", "pydantic", "flask")


class ControlApi:
    """Answers the command.

    Args:
        keys: the configured tails.
        state: the open state directory.
        clock: for ages and timestamps.
        supervisor: of the running daemon; None if the calls work on the files alone.
        repair: sends documents of a stopped tail through its pipeline again.

    Attributes:
        audit: the audit log.
        snapshots: the states of all tails, one second old at most.
        pillows, checkpoints, dead_letters, repair: the calls by concern.
        health: the checks of the running daemon; None without one.
        events, taps: what the running daemon streams; None without one.
        reloader, logs: of the running daemon; None without one.
        tails: the tails that can be named.
        clock: for ages and timestamps.
        requests: the number of HTTP requests by operation, method and status.
        render_metrics: returns the metrics' media type and text for an `Accept` header; None without any.
        calls: what a client can call, by name.
    """

    def __init__(
        self,
        *,
        keys: Collection[TailKey],
        state: StateDir,
        clock: Clock,
        supervisor: Supervisor | None,
        repair: Callable[[TailKey, Sequence[str]], None] | None = None,
    ) -> None:
        self.clock = clock
        self.tails = tails = Tails(keys, state=state, clock=clock, supervisor=supervisor)
        self.audit = state.audit
        self.snapshots = Snapshots(tails.statuses, clock)
        self.pillows = pillows = PillowCalls(tails, self.snapshots, clock=clock)
        self.checkpoints = checkpoints = CheckpointCalls(tails, clock=clock)
        self.dead_letters = dead_letters = DeadLetterCalls(tails)
        self.health = None if supervisor is None else Health(supervisor, clock)
        self.events: EventSource | None = None
        self.taps: Taps | None = None
        self.reloader: Reloader | None = None
        self.logs: Logs | None = None
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.render_metrics: Callable[[str], tuple[str, bytes]] | None = None
        self.config_digest = ""
        self.calls: Mapping[str, Callable[..., Any]] = {
            "ping": lambda: "pillowd",
            "status": pillows.status,
            "pause": pillows.pause,
            "resume": pillows.resume,
            "restart": pillows.restart,
            "checkpoint.get": checkpoints.get,
            "checkpoint.history": checkpoints.history,
            "checkpoint.set": checkpoints.set_seq,
            "checkpoint.reset": checkpoints.reset,
            "checkpoint.rewind": checkpoints.rewind,
            "checkpoint.export": checkpoints.export,
            "checkpoint.import": checkpoints.import_,
            "dead-letter.list": dead_letters.list_page,
            "dead-letter.ids": dead_letters.ids,
            "dead-letter.show": dead_letters.show,
            "dead-letter.retry": dead_letters.retry,
            "dead-letter.discard": dead_letters.discard,
            "verify.repair": RepairCalls(tails, repair, clock=clock).repair,
        }

    def describe_version(self) -> dict[str, Any]:
        """Return the versions of pillowd and its libraries, and the digest of the configuration."""
        return {
            "version": version("pillowd"),
            "python": platform.python_version(),
            "libraries": {name: version(name) for name in LIBRARIES},
            "config_digest": self.config_digest,
        }
