"""Exchange two builds of a pillow: first in every target, then their dead letters and checkpoints.

Every step can be repeated, and the record names the finished ones. After a crash at any point the remaining
steps are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec
import structlog
from gevent.event import Event

from checkpoints import TailKey
from daemon.rebuilds.record import Rebuild, RebuildState
from daemon.state_dir import StateDir
from pillows.clock import Clock
from pillows.errors import AccessError, AwayError, FatalError, RetryableError
from pillows.retry.backoff import Backoff
from pillows.transports.common.builds import BuildSwitch, Exchange

#: How long a refused step is retried. Both tails are stopped meanwhile.
GIVE_UP_SECONDS = 120.0
#: Longest pause between two attempts.
PAUSE_SECONDS = 2.0

#: The step after those of the targets.
_LETTERS = "dead-letters"

_log = structlog.get_logger("pillowd.rebuild")


class Switch:
    """One exchange of two builds.

    Args:
        key: the tail of the live build.
        state: holds the record in the state `switching`, which is the intent.
        forwards: transport -> the switch that makes the other build live.
        backwards: transport -> the switch that makes the current build live again.
        clock: for waits.
        stop: ends the exchange; the next start continues it.
    """

    def __init__(
        self,
        key: TailKey,
        state: StateDir,
        *,
        forwards: Mapping[str, BuildSwitch],
        backwards: Mapping[str, BuildSwitch],
        clock: Clock,
        stop: Event,
    ) -> None:
        self._key = key
        self._state = state
        self._forwards = forwards
        self._backwards = backwards
        self._clock = clock
        self._stop = stop

    @property
    def _record(self) -> Rebuild:
        found = self._state.rebuilds.get(self._key)
        if found is None or found.state is not RebuildState.SWITCHING:
            raise RuntimeError(f"{self._key} is not being switched")
        return found

    def run(self) -> Rebuild | None:
        """Finish the exchange. Undo it if a target refuses.

        Returns:
            The record afterwards; None if the exchange was stopped.

        Raises:
            StoreError, OSError: the state directory can't be written. Nothing is lost: call `run` again.
        """
        if not self._record.undoing and not self._exchange_all():
            return None
        if self._record.undoing:
            return self._undo()
        exchange = self._record.make_exchange(self._key)
        self._park_letters(exchange)
        self._hand_over(exchange)
        return self._finish()

    def _exchange_all(self) -> bool:
        """Exchange in all targets. Return False if a stop came before the end."""
        exchange, copies = self._record.make_exchange(self._key), self._record.copies
        for name, switch in self._forwards.items():
            if name in self._record.steps:
                continue
            give_up_at = self._clock.monotonic() + GIVE_UP_SECONDS
            refusal = self._attempt(partial(self._exchange, switch, exchange, copies), name, give_up_at)
            if refusal is None:
                return False
            if refusal:
                _log.error("rebuild.refused", pillow=str(self._key), transport=name, reason=refusal)
                self._keep(msgspec.structs.replace(self._record, undoing=f"{name}: {refusal}"))
                return True
            self._note(name)
        return True

    def _exchange(self, switch: BuildSwitch, exchange: Exchange, copies: bool) -> None:
        switch.exchange(exchange, copies=copies)

    def _note(self, step: str) -> None:
        record = self._record
        self._keep(msgspec.structs.replace(record, steps=(*record.steps, step), reason=""))

    def _park_letters(self, exchange: Exchange) -> None:
        """Move the outgoing build's dead letters to `exchange.parked`, so that this can be repeated."""
        if _LETTERS not in self._record.steps:
            self._state.dead_letters.hand_over(exchange.key, exchange.parked)
            self._note(_LETTERS)

    def _hand_over(self, exchange: Exchange) -> None:
        """Move the incoming build's dead letters and checkpoint to the live tail."""
        self._state.dead_letters.hand_over(exchange.shadow, exchange.key)
        self._state.store.exchange(exchange.key, shadow=exchange.shadow, parked=exchange.parked)
        if self._record.copies:
            self._state.store.forget(exchange.parked)
            self._state.dead_letters.forget_all(exchange.parked)
        if (comparison := self._state.comparisons.get(exchange.shadow)) is not None:
            self._state.comparisons.put(exchange.key, comparison)

    def _finish(self) -> Rebuild:
        record = self._record
        is_way_back = record.before is RebuildState.SWITCHED
        state = RebuildState.ROLLED_BACK if is_way_back else RebuildState.SWITCHED
        done = msgspec.structs.replace(
            record,
            state=RebuildState.DROPPED if record.copies else state,
            live=record.other,
            other=record.live,
            live_definition=record.other_definition,
            other_definition=record.live_definition,
            **_settled(self._clock),
        )
        self._keep(done)
        _log.info("rebuild.switched", pillow=str(self._key), build=done.live, state=str(done.state))
        return done

    def _undo(self) -> Rebuild | None:
        """Undo the exchange in every target that has, or may have, exchanged the builds."""
        record = self._record
        exchange = record.make_exchange(self._key).reverse()
        for name, switch in self._backwards.items():
            # A target that made the exchange can undo it, so retry until it does.
            while refusal := self._attempt(partial(switch.exchange, exchange), name, float("inf")):
                self._keep(msgspec.structs.replace(self._record, reason=f"{name}: {refusal}"))
                if self._clock.wait(self._stop, PAUSE_SECONDS):
                    return None
            if refusal is None:
                return None
        undone = msgspec.structs.replace(
            record,
            state=record.before or RebuildState.READY,
            switch="manual",
            **_settled(self._clock) | {"reason": record.undoing, "failure": record.undoing},
        )
        self._keep(undone)
        return undone

    def _attempt(self, call: Callable[[], None], name: str, give_up_at: float) -> str | None:
        """Call a step until it succeeds, or until a target refuses it and certainly has not done it.

        Returns:
            Why the step is refused; "" if it is done; None if the exchange was stopped.
        """
        backoff = Backoff(initial_seconds=0.2, max_seconds=PAUSE_SECONDS)
        while not self._stop.is_set():
            try:
                call()
            except (AwayError, AccessError) as error:  # an attempt before may have succeeded
                reason = str(error)
            except RetryableError as error:
                reason = str(error)
                if self._clock.monotonic() >= give_up_at:
                    return reason
            except FatalError as error:
                return str(error)
            else:
                return ""
            if self._record.reason != reason:
                _log.warning("rebuild.waits", pillow=str(self._key), transport=name, reason=reason)
                self._keep(msgspec.structs.replace(self._record, reason=reason))
            self._clock.wait(self._stop, backoff.next(at_least_seconds=PAUSE_SECONDS / 4))
        return None

    def _keep(self, record: Rebuild) -> None:
        self._state.rebuilds.put(self._key, record)


def _settled(clock: Clock) -> dict[str, object]:
    """Return the fields of a record after a switch."""
    return {
        "before": None,
        "steps": (),
        "undoing": "",
        "reason": "",
        "failure": "",
        "wanted": "",
        "changed_at": clock.wall(),
    }
