"""All of the operator's calls, by their names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from checkpoints import TailKey
from daemon.control.checkpoints import CheckpointCalls
from daemon.control.dead_letters import DeadLetterCalls
from daemon.control.pillows import PillowCalls
from daemon.control.repair import RepairCalls
from daemon.control.tails import Tails
from daemon.state_dir import StateDir
from daemon.supervisor import Supervisor
from pillows.clock import Clock


class Operations:
    """Answers the operator's calls.

    Args:
        keys: the configured tails.
        state: the open state directory.
        clock: for what is shown and noted.
        supervisor: of the running daemon; None on the files alone.
        repair: sends documents of a tail that does not run through its pipeline again.
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
        tails = Tails(keys, state=state, clock=clock, supervisor=supervisor)
        self._groups = (
            PillowCalls(tails, clock=clock),
            CheckpointCalls(tails, clock=clock),
            DeadLetterCalls(tails),
            RepairCalls(tails, repair, clock=clock),
        )

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """Every call by its name."""
        calls: dict[str, Callable[..., Any]] = {"ping": lambda: "pillowd"}
        for group in self._groups:
            calls |= group.calls
        return calls
