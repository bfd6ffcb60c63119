"""Start a run: open the targets, collect the facts, and store the decision of `start_decision` everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Protocol

import msgspec
from msgspec.structs import replace

from checkpoints import Checkpoint, CheckpointMoved, ConfigDigest, IntegrityError, Seq, TailKey
from pillows.errors import ConfigError, StateLostError
from pillows.feed.base import DatabaseIdentity
from pillows.progress.checkpointer import acquire, is_transactional
from pillows.retry.retrier import Retrier
from pillows.runtime import start_decision
from pillows.runtime.tail_settings import TailServices, TailSettings
from pillows.transports.base import KeyedTransport, TargetState, Transport


class FeedStart(Protocol):
    """The part of a feed that a start needs; see `Feed` for each method."""

    def identify(self) -> DatabaseIdentity:
        """Read the database's identity and purge position."""

    def mark(self) -> bool:
        """Write our identity token to the database, if that is configured."""

    def start(self) -> Seq:
        """Return where a tail without a checkpoint begins."""

    def find_first(self) -> Seq:
        """Return where a pass into empty outputs begins."""


class TailStartup:
    """Opens a run's targets and determines its first checkpoint.

    Args:
        settings: the tail's.
        services: the tail's.
        feed: its feed.
        retrier: retries unreachable servers.
    """

    def __init__(
        self, settings: TailSettings, services: TailServices, feed: FeedStart, retrier: Retrier
    ) -> None:
        self._settings = settings
        self._services = services
        self._feed = feed
        self._retrier = retrier
        self._transports: Sequence[Transport] = ()

    def run(self, stack: ExitStack) -> tuple[Sequence[Transport], Checkpoint]:
        """Open the targets, decide where to start, and store the decision here and in the targets.

        Args:
            stack: closes the targets.

        Returns:
            The open transports, and the stored checkpoint to continue from.

        Raises:
            StateLostError: state directory and targets contradict each other.
            ConfigError: the configuration does not fit the checkpoint.
            CheckpointMoved: an operator edited the checkpoint meanwhile.
        """
        former = self._former()
        start_decision.refuse_moved(self._settings.key, self._stored(self._settings.key), former)
        facts = self._collect_facts(self._open(stack, former), former)
        decision = start_decision.decide_start(facts)
        for event, detail in decision.warnings.items():
            self._services.observer.warning(self._settings.key, event=event, details={"detail": detail})
        checkpoint = self._placed(decision.checkpoint or self._fresh(facts), facts)
        checkpoint = self._saved(checkpoint, facts.stored)
        self._services.observer.notice(
            self._settings.key,
            event="tail.resumed" if decision.checkpoint and checkpoint.changes else "tail.started",
            details={"seq": str(checkpoint.seq), "epoch": checkpoint.epoch, "changes": checkpoint.changes},
        )
        acquire(self._transports, self._retrier, checkpoint)
        return self._transports, checkpoint

    def _former(self) -> Mapping[TailKey, Checkpoint]:
        """Return the pillow's checkpoints on other sources."""
        ours = self._settings.key
        known = self._services.store.keys()
        keys = [key for key in known if key.pillow == ours.pillow and key != ours]
        return {key: checkpoint for key in keys if (checkpoint := self._stored(key))}

    def _open(self, stack: ExitStack, former: Mapping[TailKey, Checkpoint]) -> Mapping[str, TargetState]:
        self._transports = self._services.make_transports()
        for transport in self._transports:
            stack.callback(transport.close)
            if isinstance(transport, KeyedTransport):
                transport.set_predecessors(former)
        check_concurrent_writes(self._transports, self._settings.batch.max_in_flight)
        target_states = {
            transport.name: self._retrier.retry_write(transport.name, transport.open)
            for transport in self._transports
        }
        for name, state in target_states.items():
            for change in state.changed:
                details = {"transport": name, "change": change}
                self._services.observer.notice(self._settings.key, event="output.changed", details=details)
        return {t.name: target_states[t.name] for t in self._transports if t.remembers}

    def _stored(self, key: TailKey) -> Checkpoint | None:
        try:
            return self._services.store.get(key)
        except IntegrityError as error:
            raise StateLostError(
                f"There is no checkpoint to start from: {error}",
                remedy="if you have a good copy of the state directory, put it back instead",
            ) from error

    def _collect_facts(
        self, target_states: Mapping[str, TargetState], former: Mapping[TailKey, Checkpoint]
    ) -> start_decision.StartupFacts:
        return start_decision.StartupFacts(
            key=self._settings.key,
            stored=self._stored(self._settings.key),
            target_states=target_states,
            transactional=is_transactional(self._transports),
            digest=ConfigDigest(
                source=self._settings.digest.source,
                outputs=outputs_digest(self._transports),
                pipeline=self._settings.digest.pipeline,
            ),
            now=self._services.clock.wall(),
            former=former,
        )

    def _fresh(self, facts: start_decision.StartupFacts) -> Checkpoint:
        return start_decision.make_first_checkpoint(
            facts, self._retrier.retry_read("source", self._feed.start)
        )

    def _placed(self, checkpoint: Checkpoint, facts: start_decision.StartupFacts) -> Checkpoint:
        """Return the checkpoint, at the first position of the source if a pass into empty outputs begins.

        Outputs with rows may hold a document that is deleted by now, and only the feed reports that. The same
        is true for targets without a memory of versions.
        """
        if checkpoint.pass_done or checkpoint.seq != Seq.BEGINNING or not start_decision.are_empty(facts):
            return checkpoint
        if any(transport.needs_deletions for transport in self._transports):
            return checkpoint
        return replace(checkpoint, seq=self._retrier.retry_read("source", self._feed.find_first))

    def _saved(self, checkpoint: Checkpoint, stored: Checkpoint | None) -> Checkpoint:
        checkpoint = self._marked(self._identified(checkpoint))
        checkpoint = replace(checkpoint, saved_at=self._services.clock.wall())
        return self._retrier.retry_write("checkpoint", partial(self._keep, checkpoint, stored))

    def _keep(self, checkpoint: Checkpoint, stored: Checkpoint | None) -> Checkpoint:
        """Save the checkpoint that the run begins with, and return it.

        A copy from a target may have been edited before the state directory was lost. The store
        takes an edited checkpoint only as another edit.
        """
        if stored is None and checkpoint.edits:
            return self._services.store.edit(self._settings.key, partial(_adopted, checkpoint))
        self._services.store.save(self._settings.key, checkpoint)
        return checkpoint

    def _identified(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with the identity of its database; read that from the source if unknown.

        Servers before 3.3 do not report a creation time, so they are asked at every start.
        """
        if identity_of(checkpoint).has_start_time:
            return checkpoint
        identity = self._retrier.retry_read("source", self._feed.identify)
        return replace(
            checkpoint,
            instance_start_time=identity.instance_start_time,
            server_uuid=identity.server_uuid,
            purge_seq=checkpoint.purge_seq or identity.purge_seq,
        )

    def _marked(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint, with `marked` set if an identity token is configured.

        A marked database is never marked again: that would hide that it was recreated.
        """
        if checkpoint.marked:
            return checkpoint
        return replace(checkpoint, marked=self._retrier.retry_read("source", self._feed.mark))


def _adopted(copy: Checkpoint, stored: Checkpoint | None) -> Checkpoint:
    if stored is not None:
        raise CheckpointMoved(f"an operator edited the checkpoint meanwhile ({stored.edits} edits)")
    return copy


def identity_of(checkpoint: Checkpoint) -> DatabaseIdentity:
    """Return the identity of the database that a checkpoint belongs to."""
    return DatabaseIdentity(
        server_uuid=checkpoint.server_uuid,
        instance_start_time=checkpoint.instance_start_time,
        purge_seq=checkpoint.purge_seq,
        marked=checkpoint.marked,
    )


def check_concurrent_writes(transports: Sequence[Transport], max_in_flight: int) -> None:
    """Refuse several batches in flight if a transport writes them one at a time.

    Raises:
        ConfigError: one does.
    """
    ordered = [transport.name for transport in transports if not transport.concurrent]
    if max_in_flight > 1 and ordered:
        raise ConfigError(
            f"{', '.join(ordered)} writes one batch after the other; max_in_flight is {max_in_flight}.",
            remedy="set the pillow's `batch.max_in_flight` to 1",
        )


def outputs_digest(transports: Sequence[Transport]) -> str:
    """Return the digest of all settings that written rows depend on, for all transports in order."""
    parts = [(t.name, t.TYPE or type(t).__name__, t.outputs_digest()) for t in transports]
    return msgspec.json.encode(parts).decode()
