"""What a target remembers of a tail: epoch, checkpoint, fence."""

from __future__ import annotations

import pytest

from pillows.errors import FencedError
from tests.conformance.steps import assert_applied, only_transactional, opened, rows
from tests.conformance.target import OTHER_KEY, Target, at, batch, document


class TargetStateConformance:
    """Target state, checkpoint, fence."""

    def test_a_new_target_is_empty_and_knows_no_epoch(self, target: Target) -> None:
        transport = target.transport("docs")
        state = transport.open()
        transport.close()
        assert (state.empty, state.epoch, state.checkpoint) == (True, None, None)

    def test_epoch_and_rows_are_known_after_reopening(self, target: Target) -> None:
        with opened(target, "docs", epoch=3) as transport:
            transport.write(batch(document("a", 1, {"n": 1}), epoch=3))
        with opened(target, "docs", claim=False) as transport:
            assert (transport.state.epoch, transport.state.empty) == (3, False)
            transport.acquire(at("0", epoch=2))
        with opened(target, "docs", claim=False) as transport:
            assert transport.state.epoch == 3, "an epoch is never lowered"

    def test_the_epoch_is_durable_before_the_first_write(self, target: Target) -> None:
        with opened(target, "docs", epoch=4):
            pass
        with opened(target, "docs", claim=False) as transport:
            assert (transport.state.epoch, transport.state.empty) == (4, True)

    @pytest.mark.parametrize("output", ["docs", "lines"])
    @pytest.mark.parametrize("gone", [False, True])
    def test_rows_and_deletions_of_another_pillow_are_known_by_their_epoch(
        self, target: Target, output: str, gone: bool
    ) -> None:
        """Under a lower one whatever comes would be taken for older than what is there."""
        if not target.tells_others:
            pytest.skip("this target does not tell of other pillows")
        with opened(target, output, epoch=3) as transport:
            transport.write(batch(document("a", 1, {"l": 1}, output=output), epoch=3))
            if gone:
                transport.write(batch(document("a", 2, output=output), epoch=3))
        with opened(target, output, claim=False, key=OTHER_KEY) as transport:
            state = transport.state
        assert (state.epoch, state.foreign_epoch, state.empty) == (None, 3, gone)
        with opened(target, output, claim=False) as transport:
            assert transport.state.epoch == 3
            assert transport.state.foreign_epoch in (None, 3)

    def test_the_checkpoint_is_saved_with_the_rows(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as transport:
            transport.write(batch(document("a", 1, {"n": 1}), checkpoint=at("7-x")))
        with opened(target, "docs", claim=False) as transport:
            assert transport.state.checkpoint == at("7-x")

    def test_a_claim_saves_the_operators_checkpoint(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as transport:
            transport.write(batch(checkpoint=at("7-x")))
            transport.acquire(at("3-x", edits=1))
        with opened(target, "docs", claim=False) as transport:
            assert transport.state.checkpoint == at("3-x", edits=1)

    @pytest.mark.parametrize("trouble", ["dead", "newer-stored", "same-stored"])
    def test_no_checkpoint_past_a_document_in_trouble(self, target: Target, trouble: str) -> None:
        """A crash before the dead letter is stored, or the refusal looked at, must read it again."""
        only_transactional(target)
        row = target.bad_row if trouble == "dead" else target.good_row
        with opened(target, "typed") as transport:
            if trouble != "dead":
                stored = 2 if trouble == "newer-stored" else 1
                transport.write(batch(document("a", stored, target.good_row, output="typed")))
            transport.write(batch(checkpoint=at("7-x")))
            fine = document("b", 1, target.good_row, output="typed")
            transport.write(batch(document("a", 1, row, output="typed"), fine, checkpoint=at("8-x")))
            assert "b" in target.read("typed")
            with opened(target, "typed", claim=False) as second:
                assert second.state.checkpoint == at("7-x")
            assert_applied(transport.write(batch(checkpoint=at("8-x"))))
        with opened(target, "typed", claim=False) as transport:
            assert transport.state.checkpoint == at("8-x")

    def test_an_earlier_owner_is_fenced(self, target: Target) -> None:
        only_transactional(target)
        with opened(target, "docs") as earlier:
            earlier.write(batch(document("a", 1, {"n": 1})))
            with opened(target, "docs") as later:
                with pytest.raises(FencedError):
                    earlier.write(batch(document("a", 2, {"n": 2}), checkpoint=at("9-x")))
                with pytest.raises(FencedError):
                    earlier.finish_pass(2)
                assert_applied(later.write(batch(document("a", 3, {"n": 3}))))
        assert rows(target) == {"a": [{"n": 3}]}
