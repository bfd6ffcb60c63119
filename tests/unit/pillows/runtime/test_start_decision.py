"""Where a tail starts, as a table of facts and decisions."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from checkpoints import PASS_TO_BEGIN, Checkpoint, ConfigDigest, Seq, TailKey
from pillows.errors import ConfigError, StateLostError
from pillows.runtime.start_decision import (
    StartDecision,
    StartupFacts,
    decide_start,
    make_first_checkpoint,
    refuse_moved,
)
from pillows.transports.base import TargetState

KEY = TailKey("cases", "couch/cases")
OTHER = TailKey("cases", "couch/other")
DIGEST = ConfigDigest(source="s", outputs="o", pipeline="p")
STORED = Checkpoint(seq=Seq.of("5-x"), changes=5, digest=DIGEST, epoch=3, pass_epoch=3, edits=2)
KNOWN = TargetState(epoch=3, empty=False)


def facts(stored: Checkpoint | None = STORED, *states: TargetState, **more: Any) -> StartupFacts:
    given: dict[str, Any] = {"transactional": False, "digest": DIGEST, "now": 7.0} | more
    target_states = {f"t{n}": state for n, state in enumerate(states or (KNOWN,))}
    return StartupFacts(key=KEY, stored=stored, target_states=target_states, **given)


def decide(stored: Checkpoint | None = STORED, *states: TargetState, **more: Any) -> StartDecision:
    return decide_start(facts(stored, *states, **more))


def reset(checkpoint: Checkpoint = STORED) -> Checkpoint:
    return Checkpoint.reset(checkpoint)


def test_a_tail_goes_on_from_its_checkpoint_without_a_word() -> None:
    assert decide() == StartDecision(checkpoint=STORED, warnings={})


def test_nothing_remembered_anywhere_is_a_fresh_start() -> None:
    nothing = TargetState(epoch=None, empty=True)
    assert decide(None, nothing) == StartDecision(checkpoint=None, warnings={})


@pytest.mark.parametrize(
    ("states", "epoch"),
    [
        ((TargetState(epoch=2, empty=False),), 3),
        ((TargetState(epoch=9, empty=False),), 9),
        ((TargetState(epoch=4, empty=False), TargetState(epoch=8, empty=False)), 8),
        ((TargetState(epoch=3, empty=False, foreign_epoch=6),), 6),
    ],
)
def test_the_epoch_is_the_highest_that_anybody_wrote_under(
    states: tuple[TargetState, ...], epoch: int
) -> None:
    checkpoint = decide(STORED, *states).checkpoint
    assert checkpoint == replace(STORED, epoch=epoch)


# --- a pass that is to begin


@pytest.mark.parametrize(
    ("states", "former", "epoch", "first_pass"),
    [
        ((KNOWN,), {}, 4, False),
        ((TargetState(epoch=9, empty=True),), {}, 10, True),
        ((TargetState(epoch=9, empty=True), KNOWN), {}, 10, False),
        ((KNOWN,), {OTHER: Checkpoint(seq=Seq.of(1), epoch=20)}, 21, False),
        ((KNOWN,), {OTHER: Checkpoint(seq=Seq.of(1), epoch=1)}, 4, False),
    ],
)
def test_a_reset_begins_a_pass_above_every_epoch_there_was(
    states: tuple[TargetState, ...], former: dict[TailKey, Checkpoint], epoch: int, first_pass: bool
) -> None:
    checkpoint = decide(reset(), *states, former=former).checkpoint
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.pass_epoch) == (epoch, epoch)
    assert checkpoint.first_pass is first_pass
    assert checkpoint.seq == Seq.BEGINNING


def test_epochs_of_former_sources_count_for_a_pass_that_begins_alone() -> None:
    former = {OTHER: Checkpoint(seq=Seq.of(1), epoch=20)}
    assert decide(former=former).checkpoint == STORED


# --- the copy of the checkpoint in a transactional target


def copy(**changed: Any) -> TargetState:
    return TargetState(epoch=3, empty=False, checkpoint=replace(STORED, **changed))


def test_a_copy_of_as_many_edits_counts() -> None:
    """The copy was written with the rows; the state directory's may be older, or newer than a rollback."""
    found = decide(STORED, copy(seq=Seq.of("4-w")), transactional=True)
    assert found.checkpoint == replace(STORED, seq=Seq.of("4-w"))
    assert found.warnings == {}


def test_a_copy_of_fewer_edits_does_not_count() -> None:
    assert decide(STORED, copy(seq=Seq.of("9-z"), edits=1), transactional=True).checkpoint == STORED


def test_a_copy_of_more_edits_is_an_old_state_directory() -> None:
    with pytest.raises(StateLostError, match=r"edited 3 times.*knows of 2.*reset cases"):
        decide(STORED, copy(edits=3), transactional=True)


def test_a_reset_counts_whatever_the_copy_says() -> None:
    checkpoint = decide(reset(), copy(edits=9), transactional=True).checkpoint
    assert checkpoint is not None
    assert checkpoint.seq == Seq.BEGINNING


def test_a_copy_in_one_of_several_targets_does_not_count() -> None:
    assert decide(STORED, copy(seq=Seq.of("9-z"), edits=9), KNOWN).checkpoint == STORED


def test_without_a_state_directory_the_copy_is_taken_with_a_warning() -> None:
    found = decide(None, copy(), transactional=True)
    assert found.checkpoint == STORED
    assert list(found.warnings) == ["checkpoint.taken_from_target"]


# --- what contradicts itself


@pytest.mark.parametrize(
    ("stored", "state", "message"),
    [
        (None, TargetState(epoch=3, empty=True), r"t0 was written by cases@.*epoch 3.*import cases FILE"),
        (None, TargetState(epoch=0, empty=True), r"epoch 0"),
        (None, TargetState(epoch=None, empty=False, foreign_epoch=0), r"another pillow did.*reset cases"),
        (STORED, TargetState(epoch=None, empty=True), r"t0 knows nothing of.*5 changes were"),
        (STORED, TargetState(epoch=3, empty=False, missing_outputs=["a", "b"]), r"a, b in t0 knows nothing"),
        (STORED, TargetState(epoch=3, empty=False, unreadable="KeyError"), r"cannot be read: KeyError"),
        (None, TargetState(epoch=3, empty=False, unreadable="KeyError"), r"cannot be read: KeyError"),
    ],
)
def test_state_that_was_lost_is_refused_with_the_remedy(
    stored: Checkpoint | None, state: TargetState, message: str
) -> None:
    with pytest.raises(StateLostError, match=message) as raised:
        decide(stored, state)
    assert "pillowd checkpoint reset cases" in str(raised.value)


@pytest.mark.parametrize(
    "stored",
    [replace(STORED, changes=0), replace(STORED, seq=Seq.BEGINNING)],
)
def test_a_target_may_know_nothing_while_nothing_was_written(stored: Checkpoint) -> None:
    assert decide(stored, TargetState(epoch=None, empty=True)).checkpoint == stored


def test_a_reset_needs_neither_a_readable_copy_nor_the_lost_outputs() -> None:
    for state in (
        TargetState(epoch=3, empty=False, unreadable="KeyError"),
        TargetState(epoch=None, empty=True),
        TargetState(epoch=3, empty=False, missing_outputs=["a"]),
    ):
        assert decide(reset(), state).checkpoint is not None


# --- a configuration that changed


@pytest.mark.parametrize(
    ("digest", "message"),
    [
        (replace(DIGEST, source="other"), "source"),
        (replace(DIGEST, outputs="other"), "outputs"),
    ],
)
def test_a_changed_source_or_output_is_refused(digest: ConfigDigest, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        decide(digest=digest)
    remedy = str(raised.value).partition("Remedy: ")[2]
    assert remedy.startswith("put the old value back, ")
    assert "`pillowd checkpoint reset cases`" in remedy


def test_a_changed_pipeline_is_a_warning_and_remembered() -> None:
    digest = replace(DIGEST, pipeline="other")
    found = decide(digest=digest)
    assert found.checkpoint == replace(STORED, digest=digest, pipeline_changed_at=7.0)
    assert list(found.warnings) == ["pipeline.changed"]
    assert "reset cases" in found.warnings["pipeline.changed"]


def test_a_checkpoint_without_digests_takes_the_present_ones() -> None:
    stored = replace(STORED, digest=ConfigDigest())
    assert decide(stored) == StartDecision(checkpoint=STORED, warnings={})


# --- another source


@pytest.mark.parametrize(
    ("stored", "former", "refused"),
    [
        (None, 1, True),
        (None, 0, False),
        (STORED, 3, False),
        (STORED, 4, True),
        (STORED, 2, False),
        (reset(), 99, False),
    ],
)
def test_a_pillow_that_was_last_run_on_another_source_is_refused(
    stored: Checkpoint | None, former: int, refused: bool
) -> None:
    others = {OTHER: Checkpoint(seq=Seq.of(1), epoch=former)}
    if not refused:
        refuse_moved(KEY, stored, others)
        return
    with pytest.raises(ConfigError, match=r"was couch/other, and is couch/cases.*reset cases"):
        refuse_moved(KEY, stored, others)


@pytest.mark.parametrize(
    ("states", "seq", "first_pass", "pass_done"),
    [
        ((TargetState(epoch=None, empty=True),), Seq.BEGINNING, True, False),
        ((TargetState(epoch=None, empty=True), KNOWN), Seq.BEGINNING, False, False),
        ((TargetState(epoch=None, empty=True),), Seq.of("9-now"), True, True),
    ],
)
def test_the_first_checkpoint_says_whether_all_is_to_be_read(
    states: tuple[TargetState, ...], seq: Seq, first_pass: bool, pass_done: bool
) -> None:
    first = make_first_checkpoint(facts(None, *states), seq)
    assert (first.seq, first.digest) == (seq, DIGEST)
    assert (first.first_pass, first.pass_done) == (first_pass, pass_done)
    assert first.pass_epoch != PASS_TO_BEGIN
