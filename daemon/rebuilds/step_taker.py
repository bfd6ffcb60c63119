"""Take one step of a rebuild."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import structlog
from gevent.event import Event

from checkpoints import Checkpoint, StoreError, TailKey
from daemon.rebuilds.builds import Builds
from daemon.rebuilds.definitions import find_live, find_other
from daemon.rebuilds.record import COMING, KEPT, Rebuild, RebuildState
from daemon.rebuilds.steps import Step
from daemon.rebuilds.switch import Switch
from daemon.rebuilds.tails import BuildTails
from daemon.reload.reloader import Reloader
from daemon.state_dir import StateDir
from daemon.tail_lookup import name_tail
from daemon.verification.runner import VerifyRunner
from pillows.clock import Clock
from pillows.errors import ConfigError, StoppedError
from pillows.options import Build

#: Wait before another attempt to restart the tails after an exchange.
_AGAIN_SECONDS = 30.0
#: States in which the other build may still differ from the source.
_UNVERIFIED = {RebuildState.BUILDING, RebuildState.VERIFYING}

_log = structlog.get_logger("pillowd.rebuild")


class StepTaker:
    """Takes the steps that are due.

    Args:
        state: holds the records of the builds.
        reloader: starts and stops tails for changed records.
        builds: makes the objects that act on the targets.
        tails: holds tails.
        verification: compares a build with the source.
        clock: for timestamps and waits.
        stop: set when the daemon ends.

    Attributes:
        outdated: the live tails that have not been restarted yet after an exchange.
        verified_at: tail of the live build -> wall-clock seconds of the last comparison.
    """

    def __init__(
        self,
        state: StateDir,
        reloader: Reloader,
        *,
        builds: Builds,
        tails: BuildTails,
        verification: VerifyRunner,
        clock: Clock,
        stop: Event,
    ) -> None:
        self.outdated: set[TailKey] = set()
        self.verified_at: dict[TailKey, float] = {}
        self._state = state
        self._reloader = reloader
        self._builds = builds
        self._tails = tails
        self._verification = verification
        self._clock = clock
        self._stop = stop

    def take(self, key: TailKey, step: Step) -> None:
        """Take a step.

        Args:
            key: the tail of the live build.
            step: the step.

        Raises:
            PillowError, StoreError, OSError: the step failed, or was done in part; it can be repeated.
        """
        take = {
            Step.BEGIN_AGAIN: self._begin_again,
            Step.VERIFY: self._verify,
            Step.SWITCH: self._switch,
            Step.DROP: self._drop,
        }[step]
        take(key)

    def _begin_again(self, key: TailKey) -> None:
        """Begin the build again: the code that makes its rows has changed meanwhile."""
        other = self._state.rebuilds.require(key).name_other(key)
        with self._holding(key, other):
            self._tails.hold(other)
            self._tails.await_end(other)
            self._change(key, of=COMING, state=RebuildState.BUILDING, reason="", failure="")
            self._state.store.edit(other, Checkpoint.reset)

    def _verify(self, key: TailKey) -> None:
        record = self._change(key, of=_UNVERIFIED, state=RebuildState.VERIFYING)
        other = record.name_other(key)
        self.verified_at[key] = self._clock.wall()
        options = self._builds.choose_contents(key, record)
        found = self._verification.compare_now(other, options=options)
        if found.total:
            reason = f"{found.total} documents differ. Remedy: `pillowd verify {other} --repair`"
            reason += f", or `pillowd rebuild cancel {key}`"
            self._change(key, of=_UNVERIFIED, reason=reason, failure=reason)
        else:
            self._change(key, of=_UNVERIFIED, state=RebuildState.READY, reason="", failure="")
            _log.info("rebuild.ready", pillow=str(key), build=record.other)

    def _switch(self, key: TailKey) -> None:
        record = self._state.rebuilds.require(key)
        other = record.name_other(key)
        is_begun = record.state is RebuildState.SWITCHING
        if is_begun:  # the other tail may have been added since
            self._tails.hold(key, other)
        definitions = self._builds.find_definitions(key)
        incoming = find_other(definitions, record, None)
        if incoming is None:
            raise ConfigError(
                "the definition of the other build is no longer in the configuration.",
                remedy="put it back, then `pillowd reload`",
            )
        with self._holding(key, key, other):
            if is_begun:
                self._tails.await_end(key, other)
            else:
                self._tails.drain(key, other)
                fields = {"before": record.state, "steps": (), "reason": "", "failure": ""}
                self._change(key, of={record.state}, state=RebuildState.SWITCHING, **fields)
            outgoing = find_live(definitions, record)
            done = Switch(
                key,
                self._state,
                forwards=self._builds.make_switches(key, incoming, Build(number=record.other)),
                backwards=self._builds.make_switches(key, outgoing, Build(number=record.live)),
                clock=self._clock,
                stop=self._stop,
            ).run()
            if done is not None:
                self._follow_builds(key)

    def _follow_builds(self, key: TailKey) -> None:
        """Restart the tails after an exchange; until then each would write the other's outputs.

        Raises:
            StoppedError: the daemon ends; its next start restarts the tails.
        """
        self.outdated.add(key)
        while True:
            try:
                self._reloader.follow_builds()
            except ConfigError as error:
                with suppress(OSError, StoreError):
                    self._state.rebuilds.explain(key, name_tail(str(error), key))
            else:
                return self.outdated.remove(key)
            if self._clock.wait(self._stop, _AGAIN_SECONDS):
                raise StoppedError

    @contextmanager
    def _holding(self, key: TailKey, *tails: TailKey) -> Iterator[None]:
        """Release held tails at the end, also after an error, unless their exchange is unfinished."""
        try:
            yield
        finally:
            record = self._state.rebuilds.get(key)
            is_open = record is not None and record.state is RebuildState.SWITCHING
            if not is_open and key not in self.outdated:
                self._tails.release(*tails)

    def _drop(self, key: TailKey) -> None:
        droppable = KEPT | {RebuildState.DROPPING}
        record = self._change(
            key, of=droppable, state=RebuildState.DROPPING, reason="", failure="", wanted=""
        )
        other = record.name_other(key)
        self._reloader.follow_builds()
        self._tails.await_end(other)
        definitions = self._builds.find_definitions(key)
        settings = find_other(definitions, record, None) or definitions[0]
        build = Build(number=record.other, live=False)
        for switch in self._builds.make_switches(other, settings, build).values():
            switch.drop()
        self._state.dead_letters.forget_all(other)
        self._state.store.forget(other)
        self._state.pauses.discard(other)
        self._change(key, state=RebuildState.DROPPED, other=record.live)
        _log.info("rebuild.dropped", pillow=str(key), build=record.other)

    def _change(self, key: TailKey, *, of: Collection[RebuildState] = (), **fields: Any) -> Rebuild:
        return self._state.rebuilds.update(key, at=self._clock.wall(), of=of, **fields)
