"""The position after a page."""

from __future__ import annotations

from functools import reduce

from checkpoints import Seq
from pillows.change_topics.page_writer import advance, make_purge
from pillows.change_topics.pages import Piece
from pillows.change_topics.positions import Position
from pillows.change_topics.records import order_purges
from pillows.feed.base import DatabaseIdentity
from pillows.models import ChangeBatch


def purge(purge_seq: str, missed: int, after: str | None = None) -> Piece:
    """A piece with purges; `after` is the purge position that the reader knows from then on."""
    identity = DatabaseIdentity(purge_seq=after) if after else None
    return Piece(ChangeBatch(changes=(), seq=None, purge_seq=purge_seq, purges_missed=missed), identity)


def test_the_last_purges_that_were_missed_are_remembered_with_the_position() -> None:
    first = reduce(advance, [purge("500-x", 400), purge("501-x", 0)], Position(seq=Seq.of("7-x")))
    assert (first.seq, first.missed_at) == (Seq.of("7-x"), "500")
    assert advance(first, purge("502-x", 0)).missed_at == "500"
    assert advance(first, purge("900-x", 1)).missed_at == "900"


def test_a_source_that_went_back_is_told_with_every_purge_after_that() -> None:
    """Compaction leaves the last record only, so each record tells of the earlier missed purges."""
    known = DatabaseIdentity(purge_seq="500-x")
    back = advance(Position(identity=known, missed_at="400"), purge("300-x", 0, after="300-x"))
    assert (back.backs, back.missed_at) == (1, "400")
    later = reduce(advance, [purge("301-x", 2, after="301-x"), purge("302-x", 0, after="302-x")], back)
    assert (later.backs, later.missed_at) == (1, "301-~1")
    told = make_purge(purge("302-x", 0).batch, later)
    assert (told.purge_seq, told.missed_at) == ("302-x-~1", "301-~1")
    assert order_purges("500-x") < order_purges(told.missed_at) < order_purges(told.purge_seq)
    assert advance(later, purge("9-x", 0)).backs == 2


def test_a_source_that_never_went_back_is_told_without_a_mark() -> None:
    after = advance(Position(), purge("3-x", 1))
    assert (after.backs, make_purge(purge("3-x", 1).batch, after).purge_seq) == (0, "3-x")
