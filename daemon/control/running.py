"""The parts of a running daemon that the control API uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from checkpoints import TailKey
from daemon.supervision.supervisor import Supervisor

if TYPE_CHECKING:  # commands on the files need none of these
    from daemon.kafka.operators.shared_pillows import SharedPillows
    from daemon.logs.setup import Logs
    from daemon.observers import Observers
    from daemon.rebuilds.rebuilder import Rebuilder
    from daemon.reload.reloader import Reloader
    from daemon.verification.runner import VerifyRunner


class RunningDaemon(Struct, frozen=True, kw_only=True):
    """The parts of a running daemon.

    Attributes:
        supervisor: runs the tails.
        observers: the history of the tails, and the metrics; None without observers.
        reloader: applies a changed configuration; None where it cannot change.
        logs: the log and its levels; None where they cannot change.
        verification: compares targets with their sources; None where that is not possible.
        rebuilder: takes the steps of rebuilds; None where that is not possible.
        listeners: where the daemon listens; filled once they are open.
        list_transports: returns the names of a tail's transports, in configured order.
        digest_config: returns the digest of the configuration in effect.
        dump_config: returns the configuration in effect, with its secrets masked.
        shared: for pillows that several daemons share; None where one daemon runs all of them.
    """

    supervisor: Supervisor
    observers: Observers | None = None
    reloader: Reloader | None = None
    logs: Logs | None = None
    verification: VerifyRunner | None = None
    rebuilder: Rebuilder | None = None
    listeners: Sequence[Any] = ()
    list_transports: Callable[[TailKey], Sequence[str]] = lambda _: ()
    digest_config: Callable[[], str] = str
    dump_config: Callable[[], dict[str, Any]] = dict
    shared: SharedPillows | None = None
