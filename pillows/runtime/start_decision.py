"""Decide where a tail starts, from the facts in the state directory, the targets and the source. Pure.

If the facts contradict each other, the tail is refused with the reason and the remedies: a silent start from
the beginning or from now could lose or duplicate rows, and nobody might notice for months.

Other modules refuse later, when they learn more: CONTRIBUTING.md, "How to add a reason to stop".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, ConfigDigest, Seq, TailKey
from pillows.errors import ConfigError, StateLostError
from pillows.transports.base import TargetState


class StartupFacts(Struct, frozen=True, kw_only=True):
    """The facts before the first change is read.

    Attributes:
        key: the tail.
        stored: the checkpoint in the state directory; None if there is none.
        target_states: transport name -> the state of its target.
        transactional: whether the only transport saves checkpoints in its own transactions.
        digest: of the present configuration.
        now: wall-clock seconds.
        former: the pillow's checkpoints on other sources.
    """

    key: TailKey
    stored: Checkpoint | None
    target_states: Mapping[str, TargetState]
    transactional: bool
    digest: ConfigDigest
    now: float
    former: Mapping[TailKey, Checkpoint] = field(default_factory=dict)


class StartDecision(Struct, frozen=True, kw_only=True):
    """Where to start.

    Attributes:
        checkpoint: the checkpoint to continue from; None for a fresh start at the configured `since`.
        warnings: event -> details, for the operator.
    """

    checkpoint: Checkpoint | None
    warnings: Mapping[str, str]


def decide_start(facts: StartupFacts) -> StartDecision:
    """Decide where a tail starts.

    Raises:
        StateLostError: state directory and targets contradict each other.
        ConfigError: the configuration does not fit the checkpoint.
    """
    warnings: dict[str, str] = {}
    _refuse_unreadable(facts)
    checkpoint = _authoritative(facts, warnings)
    if checkpoint is None:
        return StartDecision(checkpoint=None, warnings=warnings)
    _refuse_changed_config(facts, checkpoint)
    _refuse_lost_targets(facts, checkpoint)
    epoch = max([checkpoint.epoch, *_epochs(facts.target_states)])
    if checkpoint.pass_epoch == PASS_TO_BEGIN:
        epoch = max([epoch, *(former.epoch for former in facts.former.values())])
        checkpoint = checkpoint.begin_pass(epoch=epoch + 1, first_pass=are_empty(facts))
    else:
        checkpoint = replace(checkpoint, epoch=epoch)
    return StartDecision(checkpoint=_with_digest(facts, checkpoint, warnings), warnings=warnings)


def refuse_moved(key: TailKey, stored: Checkpoint | None, former: Mapping[TailKey, Checkpoint]) -> None:
    """Refuse a pillow whose source was changed: its outputs hold the rows of another database.

    With `pillowd checkpoint reset` the operator consents to replace them. The new pass gets an epoch above
    those of all former sources, so the source with the highest epoch is the one that was read last.

    Args:
        key: the tail.
        stored: its checkpoint.
        former: the pillow's checkpoints on other sources.

    Raises:
        ConfigError: the pillow last ran on another source, and was not reset since.
    """
    ours = stored.epoch if stored else 0
    if stored is not None and stored.pass_epoch == PASS_TO_BEGIN:
        return
    for other, checkpoint in former.items():
        if checkpoint.epoch > ours:  # 0: it was reset, and never run
            raise ConfigError(
                f"The source of {key.pillow} has changed: it was {other.source}, and is {key.source} now. "
                "Its outputs hold the former source's documents.",
                remedy=f"put the old value back, or `pillowd checkpoint reset {key.pillow}`",
            )


def make_first_checkpoint(facts: StartupFacts, seq: Seq) -> Checkpoint:
    """Return the first checkpoint of a tail that is new everywhere."""
    return Checkpoint(
        seq=seq,
        digest=facts.digest,
        first_pass=are_empty(facts),
        pass_done=seq != Seq.BEGINNING,
    )


def _authoritative(facts: StartupFacts, warnings: dict[str, str]) -> Checkpoint | None:
    """Return the checkpoint that counts: the state directory's, or the copy in the only target."""
    stored, copy = facts.stored, _copy(facts)
    if stored is None and copy is not None:
        warnings["checkpoint.taken_from_target"] = "the state directory has no checkpoint; the target has"
        return copy
    if stored is None:
        _refuse_lost_state(facts)
        return None
    if copy is None or copy.edits < stored.edits or stored.pass_epoch == PASS_TO_BEGIN:
        return stored  # a reset counts whatever the target says: it is the remedy where they contradict
    if copy.edits > stored.edits:
        raise StateLostError(
            f"The target's checkpoint of {facts.key} was edited {copy.edits} times, the state "
            f"directory knows of {stored.edits}: this is an old state directory.",
            remedy=f"put the newer state directory back, or `pillowd checkpoint reset {facts.key.pillow}`",
        )
    return copy


def _refuse_unreadable(facts: StartupFacts) -> None:
    """Refuse an unreadable checkpoint in a target. Its epoch is still readable, so a reset can exceed it."""
    stored = facts.stored
    if stored is not None and stored.pass_epoch == PASS_TO_BEGIN:
        return
    for name, state in facts.target_states.items():
        if state.unreadable:
            raise StateLostError(
                f"The checkpoint of {facts.key} in {name} cannot be read: {state.unreadable}.",
                remedy="start the pillowd that wrote it, or "
                f"`pillowd checkpoint reset {facts.key.pillow}` to read everything again",
            )


def _copy(facts: StartupFacts) -> Checkpoint | None:
    if not facts.transactional:
        return None
    (state,) = facts.target_states.values()
    return state.checkpoint


def _refuse_lost_state(facts: StartupFacts) -> None:
    """Refuse a target with rows if there is no checkpoint here: the state directory was lost."""
    pillow = facts.key.pillow
    for name, state in facts.target_states.items():
        if state.epoch is not None:
            raise StateLostError(
                f"{name} was written by {facts.key} before (epoch {state.epoch}), "
                "but its checkpoint is gone from the state directory.",
                remedy=f"`pillowd checkpoint import {pillow} FILE`, or `pillowd checkpoint reset "
                f"{pillow}` to read everything again",
            )
        if state.foreign_epoch is not None:
            raise StateLostError(
                f"{name} holds rows, but none that {facts.key} wrote: another pillow did, "
                "or this one under another name, or somebody else.",
                remedy="give it outputs of its own, or put the former name back, or "
                f"`pillowd checkpoint reset {pillow}` to take them over and replace what is there",
            )


def _refuse_lost_targets(facts: StartupFacts, checkpoint: Checkpoint) -> None:
    """Refuse a target that does not know this tail, though changes were acknowledged."""
    for name, state in facts.target_states.items():
        forgetful = [name] if state.epoch is None else state.missing_outputs
        if forgetful and checkpoint.changes and checkpoint.seq != Seq.BEGINNING:
            what = name if forgetful == [name] else f"{', '.join(forgetful)} in {name}"
            raise StateLostError(
                f"{what} knows nothing of {facts.key}, but the checkpoint says that "
                f"{checkpoint.changes} changes were processed: the target is new, or was emptied.",
                remedy=f"`pillowd checkpoint reset {facts.key.pillow}` to read everything again",
            )


def _refuse_changed_config(facts: StartupFacts, checkpoint: Checkpoint) -> None:
    ours, theirs, pillow = facts.digest, checkpoint.digest, facts.key.pillow
    reset = f"put the old value back, or `pillowd checkpoint reset {pillow}`"
    if theirs.source and ours.source != theirs.source:
        raise ConfigError(
            f"The source of {facts.key} is not the one that its checkpoint was made with.",
            remedy=reset,
        )
    if theirs.outputs and ours.outputs != theirs.outputs:
        raise ConfigError(
            f"The outputs of {facts.key} have changed in a way that rows already written can't "
            "follow (transports, index settings or the kind of table).",
            remedy=f"put the old value back, or `pillowd rebuild {pillow}` to fill new outputs and switch to "
            f"them, or `pillowd checkpoint reset {pillow}` to do without the old ones at once",
        )


def _with_digest(facts: StartupFacts, checkpoint: Checkpoint, warnings: dict[str, str]) -> Checkpoint:
    """Return the checkpoint under the present configuration; a changed pipeline is a warning."""
    theirs = checkpoint.digest.pipeline
    if theirs and theirs != facts.digest.pipeline:
        warnings["pipeline.changed"] = (
            "filter, transform, columns or what becomes of deleted documents have changed: "
            f"rows written before keep their old form until `pillowd rebuild {facts.key.pillow}`, or "
            f"`pillowd checkpoint reset {facts.key.pillow}` in place"
        )
        checkpoint = replace(checkpoint, pipeline_changed_at=facts.now)
    return replace(checkpoint, digest=facts.digest)


def are_empty(facts: StartupFacts) -> bool:
    """Return whether no target holds a row."""
    return all(state.empty for state in facts.target_states.values())


def _epochs(target_states: Mapping[str, TargetState]) -> Sequence[int]:
    """List the epochs of all earlier writers: a target would refuse all writes under a lower epoch."""
    known = [(state.epoch, state.foreign_epoch) for state in target_states.values()]
    return [epoch for epochs in known for epoch in epochs if epoch is not None]
