"""Promised figures that a script in `bench/` measures: rough in CI, exact in a proof."""

from __future__ import annotations

from functools import partial

from bench.fanout import microseconds_per_batch
from bench.transforms import microseconds_per_document
from tests.support.sizes import best_of, size


def test_the_fan_out_takes_100_microseconds_for_a_batch_to_three_transports():
    limit = 100 * size(ci=20, proof=1)
    assert best_of(partial(microseconds_per_batch, 300), below=limit) < limit


def test_a_typical_declarative_transform_takes_15_microseconds_for_500_bytes():
    """A busy machine gets more attempts."""
    limit = 15 * size(ci=20, proof=1)
    assert best_of(partial(microseconds_per_document, 2000), below=limit) < limit
