"""The process is sampled while somebody wants it, and no longer."""

from __future__ import annotations

import gevent

from daemon.metrics.process import TIMER_SECONDS
from tests.unit.daemon.metrics.conftest import Scrape

NAME = "pillowd_hub_delay_seconds"


def test_a_blocked_hub_is_seen_as_a_late_timer(scrape: Scrape) -> None:
    with scrape.metrics.sampler.running():
        scrape.clock.advance(3 * TIMER_SECONDS)
        assert scrape[f"{NAME}_count{{}}"] == 3
        assert scrape[f"{NAME}_bucket{{le=0.01}}"] == 3
        scrape.clock._now += TIMER_SECONDS + 0.7  # as if one greenlet had computed for so long
        scrape.clock.advance(0)
        assert scrape[f"{NAME}_bucket{{le=0.5}}"] == 3
        assert scrape[f"{NAME}_count{{}}"] == 4
    scrape.clock.advance(10)
    assert scrape[f"{NAME}_count{{}}"] == 4


def test_the_free_space_is_that_of_the_state_directory(scrape: Scrape) -> None:
    with scrape.metrics.sampler.running():
        gevent.sleep(0.05)
        assert scrape["pillowd_state_directory_free_bytes{}"] > 0


def test_greenlets_are_counted_while_they_live(scrape: Scrape) -> None:
    with scrape.metrics.sampler.running():
        before = scrape["pillowd_greenlets{}"]
        some = [gevent.spawn(gevent.sleep, 60) for _ in range(5)]
        assert scrape["pillowd_greenlets{}"] == before + 5
        gevent.killall(some)
        assert scrape["pillowd_greenlets{}"] == before
