"""The position after a page."""

from __future__ import annotations

from checkpoints import Seq
from pillows.change_topics.page_writer import advance, make_purge
from pillows.change_topics.pages import Piece
from pillows.change_topics.positions import Position
from pillows.feed.base import DatabaseIdentity
from pillows.models import ChangeBatch


def purge(purge_seq: str, missed: int) -> Piece:
    return Piece(ChangeBatch(changes=(), seq=None, purge_seq=purge_seq, purges_missed=missed), None)


def test_the_last_purges_that_were_missed_are_remembered_with_the_position() -> None:
    first = advance(Position(seq=Seq.of("7-x")), [purge("500-x", 400), purge("501-x", 0)])
    assert (first.seq, first.missed_at) == (Seq.of("7-x"), "500")
    assert advance(first, [purge("502-x", 0)]).missed_at == "500"
    assert advance(first, [purge("900-x", 1)]).missed_at == "900"


def test_a_purge_position_that_went_back_says_so() -> None:
    batch = purge("300-x", 1).batch
    for before, is_back in (("501-x", True), ("299-x", False), (None, False)):
        assert make_purge(batch, DatabaseIdentity(purge_seq=before), "").is_back is is_back
    assert not make_purge(batch, None, "").is_back
