"""The rebuilds of the running daemon: requests, and the steps that are due."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

import gevent
import structlog
from gevent.event import Event

from checkpoints import Checkpoint, StoreError, TailKey
from daemon.config.models import Config
from daemon.errors import ConflictError
from daemon.rebuilds.builds import Builds
from daemon.rebuilds.definitions import find_live
from daemon.rebuilds.record import COMING, KEPT, Definition, Rebuild, RebuildState
from daemon.rebuilds.step_taker import StepTaker
from daemon.rebuilds.steps import Step, find_next_step
from daemon.rebuilds.tails import BuildTails
from daemon.reload.reloader import Reloader
from daemon.state_dir import StateDir
from daemon.supervision.supervisor import Supervisor
from daemon.tail_lookup import name_tail
from daemon.verification.runner import VerifyRunner
from pillows.clock import Clock
from pillows.errors import PillowError
from pillows.options import Build
from pillows.transports.common.builds import find_live_key

#: Wait before a failed step is taken again.
_AGAIN_SECONDS = 30.0

#: States in which a switch may be requested.
_SWITCHABLE = COMING | {RebuildState.ROLLED_BACK}

_log = structlog.get_logger("pillowd.rebuild")


class Rebuilder:
    """Begins, advances and ends rebuilds; each pillow has one at a time.

    Args:
        state: holds the records of the builds.
        reloader: holds the configuration in effect, and starts and stops tails for changed records.
        supervisor: runs the tails.
        verification: compares a build with the source.
        clock: for timestamps and waits.
        stop: set when the daemon ends.
    """

    def __init__(
        self,
        state: StateDir,
        reloader: Reloader,
        *,
        supervisor: Supervisor,
        verification: VerifyRunner,
        clock: Clock,
        stop: Event,
    ) -> None:
        self._state = state
        self._reloader = reloader
        self._supervisor = supervisor
        self._clock = clock
        self._builds = Builds(lambda: reloader.config, state.store)
        self._tails = BuildTails(
            supervisor, lambda: reloader.config.daemon.shutdown_timeout, clock=clock, stop=stop
        )
        self._steps = StepTaker(
            state,
            reloader,
            builds=self._builds,
            tails=self._tails,
            verification=verification,
            clock=clock,
            stop=stop,
        )
        self._workers: dict[TailKey, gevent.Greenlet[..., None]] = {}
        self._starting: set[TailKey] = set()
        self._not_before: dict[TailKey, float] = {}
        self._examined: Config | None = None
        self._automatic: gevent.Greenlet[[], None] | None = None

    # -- requests

    def start(self, key: TailKey, **options: Any) -> Rebuild:
        """Begin a rebuild.

        Args:
            key: the tail of the live build.
            options: `verify`, `switch`, `workers` and `keep_seconds` of `Rebuild`.

        Raises:
            ConflictError: the pillow can't be rebuilt now.
            ConfigError: the pillow can't be rebuilt; the error names each obstacle.
            RetryableError, AccessError: a target can't be asked.
        """
        former = self._state.rebuilds.get(key)
        if former is not None and former.has_other:
            raise ConflictError(
                f"{key} already has another build: its rebuild is {former.state}",
                remedy=f"{_name_end(key, former)} ends that",
            )
        if self._state.store.get(key) is None:
            raise ConflictError(f"{key} has no rows yet", remedy="wait until it has written some")
        settings = self._builds.find_definitions(key)
        live = find_live(settings, former)
        coming = next((each for each in settings if each is not live), live)
        number = 1 + (former.last if former is not None else 1)
        build = Build(number=number, live=False)
        self._builds.refuse_obstacles(key, coming, build, copies=options.get("switch") == "replace-rows")
        if key in self._starting or self._state.rebuilds.get(key) != former:  # while targets were asked
            raise ConflictError(f"a rebuild of {key} is being started")
        now = self._clock.wall()
        record = Rebuild(
            state=RebuildState.BUILDING,
            live=former.live if former is not None else 1,
            other=number,
            last=number,
            live_definition=self._builds.describe_live(key, live),
            other_definition=self._builds.describe(coming),
            started_at=now,
            changed_at=now,
            **options,
        )
        self._steps.verified_at.pop(key, None)
        self._starting.add(key)
        try:
            # Use an epoch above that of the live build: see `start_decision.refuse_moved`.
            stored = self._state.store.get(key)
            self._state.store.edit(record.name_other(key), lambda _: Checkpoint.reset(stored))
            self._state.rebuilds.put(key, record)
        finally:
            self._starting.discard(key)
        _log.info("rebuild.started", pillow=str(key), build=number)
        self._reloader.follow_builds()
        return record

    def switch(self, key: TailKey) -> Rebuild:
        """Switch to the other build as soon as it is ready.

        Raises:
            NotFoundError, ConflictError: there is no other build, or it is already live.
        """
        record = self._state.rebuilds.require(key)
        if record.state not in _SWITCHABLE:
            raise ConflictError(f"{key} can't be switched: the state of its rebuild is {record.state}")
        return self._want(key, "switched", of=_SWITCHABLE)

    def roll_back(self, key: TailKey) -> Rebuild:
        """Switch back to the former build, once it has caught up.

        Raises:
            NotFoundError, ConflictError: there is no former build, or it can't be made live again.
        """
        record = self._state.rebuilds.require(key)
        if record.state is not RebuildState.SWITCHED:
            raise ConflictError(f"{key} has no former build to roll back to: its rebuild is {record.state}")
        if record.name_other(key) not in self._supervisor.keys:
            raise ConflictError(
                f"the former build of {key} is not up to date: its definition or code no longer exists",
                remedy="write the former definition under `next:`, then `pillowd reload`",
            )
        return self._want(key, "rolled-back", of={RebuildState.SWITCHED})

    def drop(self, key: TailKey, *, coming: bool) -> Rebuild:
        """Remove the other build.

        Args:
            key: the tail of the live build.
            coming: whether the switch is still to come; False for one that is done.

        Raises:
            NotFoundError, ConflictError: there is no such build, or it is being switched.
        """
        record = self._state.rebuilds.require(key)
        droppable = COMING if coming else KEPT | {RebuildState.DROPPING}
        if record.state not in droppable:
            remedy = _name_end(key, record) if record.state in COMING | KEPT else "wait a moment"
            raise ConflictError(f"the rebuild of {key} is {record.state}", remedy=remedy)
        if key in self._steps.outdated:
            raise ConflictError(f"the switch of {key} is about to end", remedy="wait a moment")
        worker = self._workers.pop(key, None)
        if worker is not None:
            worker.kill()  # it compares or waits; during a switch this was refused above
        record = self._state.rebuilds.update(
            key, at=self._clock.wall(), of=droppable, state=RebuildState.DROPPING, wanted=""
        )
        self._wake(key)
        return record

    def _want(self, key: TailKey, wanted: str, *, of: Collection[RebuildState]) -> Rebuild:
        changed = self._state.rebuilds.update(key, at=self._clock.wall(), of=of, wanted=wanted)
        self._not_before.pop(key, None)
        self._wake(key)
        return changed

    # -- automatic steps

    def recover(self) -> None:
        """Hold the tails of unfinished exchanges; the first tick finishes the exchanges."""
        for key, record in self._state.rebuilds.all.items():
            if record.state is RebuildState.SWITCHING:
                self._tails.hold(key, record.name_other(key))

    def tick(self) -> None:
        """Start every step that is due."""
        for key in self._state.rebuilds.all:
            self._wake(key)
        busy = self._automatic is not None and not self._automatic.dead
        if self._examined is not self._reloader.config and not busy:
            self._examined = self._reloader.config
            self._automatic = gevent.spawn(self._start_automatic)

    def close(self) -> None:
        """Stop the running steps. The next start of the daemon continues them."""
        for worker in filter(None, [*self._workers.values(), self._automatic]):
            worker.kill()

    def _wake(self, key: TailKey) -> None:
        worker = self._workers.get(key)
        is_free = worker is None or worker.dead
        if (
            is_free
            and key in self._supervisor.keys
            and self._clock.monotonic() >= self._not_before.get(key, 0.0)
        ):
            record = self._state.rebuilds.get(key)
            if record is None or not record.has_other:
                return
            found = find_next_step(
                record,
                self._tails.get_status(record.name_other(key)),
                now=self._clock.wall(),
                verified_at=self._steps.verified_at.get(key),
            )
            if found.step is not None:
                self._workers[key] = gevent.spawn(self._take, key, found.step)
            elif found.reason != record.reason:
                with suppress(OSError, StoreError):  # said again with the next tick
                    self._state.rebuilds.explain(key, name_tail(found.reason, key))

    def _take(self, key: TailKey, step: Step) -> None:
        try:
            self._steps.take(key, step)
        except (PillowError, StoreError, OSError) as error:
            reason = name_tail(str(error), key)
            self._not_before[key] = self._clock.monotonic() + _AGAIN_SECONDS
            _log.error("rebuild.step_failed", pillow=str(key), step=str(step), reason=reason)
            with suppress(OSError, StoreError):
                self._state.rebuilds.explain(key, reason, failed=True)

    def _start_automatic(self) -> None:
        """Start the rebuilds that the configuration requests (`rebuild: auto`)."""
        for key in list(self._supervisor.keys):
            record = self._state.rebuilds.get(key)
            is_live = find_live_key(key) == key
            if not is_live or self._reloader.config.tails[key.pillow].rebuild != "auto":
                continue
            try:
                if (record is None or not record.has_other) and self._is_outdated(key, record):
                    self.start(key)
            except (PillowError, StoreError, OSError) as error:
                _log.error("rebuild.refused", pillow=str(key), reason=name_tail(str(error), key))

    def _is_outdated(self, key: TailKey, record: Rebuild | None) -> bool:
        """Return whether the live rows were made with an older definition than the newest one."""
        stored = self._state.store.get(key)
        if stored is None or not stored.changes:
            return False
        definitions = self._builds.find_definitions(key)
        if len(definitions) == 1:
            is_other = self._builds.describe_live(key, definitions[0]) == Definition()
            return is_other or stored.pipeline_changed_at is not None
        newest = self._builds.describe(definitions[1]).settings
        known = {self._builds.describe(definitions[0]).settings}
        if record is not None:  # one that somebody went back from is not built again
            known = {record.live_definition.settings, record.other_definition.settings}
        return newest not in known


def _name_end(key: TailKey, record: Rebuild) -> str:
    """Return the command that ends a rebuild."""
    if record.state in COMING:
        return f"`pillowd rebuild cancel {key}`"
    return f"`pillowd rebuild drop {key}`"
