"""Where a target lost one output of several, or its copy of the checkpoint, it is refused until a reset."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from checkpoints import Checkpoint, ConfigDigest, Seq
from pillows.errors import ConfigError, StateLostError
from pillows.runtime.start_decision import StartupFacts, decide_start
from pillows.transports.base import TargetState
from tests.support.memory_transport import KEY

STORED = Checkpoint(seq=Seq.of("5-x"), changes=5, digest=ConfigDigest(outputs="o"))


def facts(stored: Checkpoint, *, outputs: str = "o") -> StartupFacts:
    return StartupFacts(
        key=KEY,
        stored=stored,
        target_states={"search": TargetState(epoch=3, empty=False, missing_outputs=["visits"])},
        transactional=False,
        digest=ConfigDigest(outputs=outputs),
        now=0.0,
    )


def test_an_output_that_was_lost_is_named_with_the_remedy():
    with pytest.raises(StateLostError, match=r"visits in search knows nothing.*checkpoint reset"):
        decide_start(facts(STORED))


def test_a_reset_fills_it_again_above_what_the_others_hold():
    reset = replace(Checkpoint.reset(STORED), edits=1)
    checkpoint = decide_start(facts(reset)).checkpoint
    assert checkpoint is not None
    assert (checkpoint.seq, checkpoint.epoch) == (Seq.BEGINNING, 4)


def test_an_output_that_was_added_is_a_change_of_the_configuration():
    with pytest.raises(ConfigError, match="outputs"):
        decide_start(facts(STORED, outputs="o and visits"))


@pytest.mark.parametrize("stored", [STORED, None])
def test_an_unreadable_copy_is_refused_with_the_remedy(stored: Checkpoint | None):
    with pytest.raises(StateLostError, match=r"in w cannot be read: KeyError.*checkpoint reset"):
        decide_start(unreadable(stored))


def test_an_unreadable_copy_is_no_obstacle_to_a_reset():
    checkpoint = decide_start(unreadable(Checkpoint.reset(STORED))).checkpoint
    assert checkpoint is not None
    assert (checkpoint.seq, checkpoint.epoch) == (Seq.BEGINNING, 4)


def unreadable(stored: Checkpoint | None) -> StartupFacts:
    state = TargetState.from_row((3, '{"from": "the future"}'), empty=False)
    return replace(facts(STORED), stored=stored, target_states={"w": state}, transactional=True)


FOREIGN = {"w": TargetState(empty=False, foreign_epoch=3)}


def test_a_pillow_under_a_new_name_is_refused_with_the_remedies():
    with pytest.raises(StateLostError, match=r"none that .* wrote.*former name back.*checkpoint reset"):
        decide_start(replace(facts(STORED), stored=None, target_states=FOREIGN))


def test_a_reset_takes_rows_of_another_pillow_over_above_their_epoch():
    reset = Checkpoint.reset(None)
    checkpoint = decide_start(replace(facts(STORED), stored=reset, target_states=FOREIGN)).checkpoint
    assert checkpoint is not None
    assert (checkpoint.seq, checkpoint.epoch, checkpoint.first_pass) == (Seq.BEGINNING, 4, False)


def test_an_imported_checkpoint_never_writes_below_rows_that_are_there():
    imported = Checkpoint(seq=Seq.of("5-x"))
    checkpoint = decide_start(replace(facts(STORED), stored=imported, target_states=FOREIGN)).checkpoint
    assert checkpoint is not None
    assert checkpoint.epoch == 3
