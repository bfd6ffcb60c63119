"""What a scrape reads from states and connections."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from daemon.metrics.snapshot import pass_ratio
from pillows.runtime.status import State
from tests.unit.daemon.metrics.conftest import STATUS, Scrape


def test_a_status_is_read_with_each_scrape(scrape: Scrape) -> None:
    scrape.clock.advance(100)
    scrape.requests["get_metrics", "GET", 200] += 2
    expected = {
        "pillowd_pillow_info{pillow=cases,connection=couch,source=cases}": 1,
        "pillowd_tails{pillow=cases,state=catching-up}": 1,
        "pillowd_tails{pillow=cases,state=live}": 0,
        "pillowd_lag_changes{pillow=cases}": 70,
        "pillowd_lag_seconds{pillow=cases}": 12.5,
        "pillowd_source_last_byte_timestamp_seconds{pillow=cases}": 1098,
        "pillowd_checkpoint_last_success_timestamp_seconds{pillow=cases}": 1097,
        "pillowd_dead_letters{pillow=cases}": 4,
        "pillowd_restarts_total{pillow=cases}": 1,
        "pillowd_epoch{pillow=cases}": 2,
        "pillowd_pass_ratio{pillow=cases}": 0.3,
        "pillowd_seconds_to_go{pillow=cases}": 23.0,
        "pillowd_source_connections{connection=couch}": 3,
        "pillowd_source_requests_total{connection=couch,outcome=ok}": 5,
        "pillowd_source_requests_total{connection=couch,outcome=throttled}": 0,
        "pillowd_http_requests_total{route=get_metrics,method=GET,status=200}": 2,
    }
    assert {name: scrape[name] for name in expected} == expected
    scrape.statuses = [replace(STATUS, state=State.FAILED, pending=None)]
    assert scrape["pillowd_tails{pillow=cases,state=failed}"] == 1
    assert "pillowd_lag_changes{" not in scrape.text, "not known is not 0"


def test_what_never_happened_ages_from_the_start(scrape: Scrape) -> None:
    """A source that is away from the beginning is silent, too."""
    scrape.clock.advance(100)
    scrape.statuses = [replace(STATUS, last_byte_age_seconds=None, checkpoint_age_seconds=None)]
    assert scrape["pillowd_source_last_byte_timestamp_seconds{pillow=cases}"] == 1000
    assert scrape["pillowd_checkpoint_last_success_timestamp_seconds{pillow=cases}"] == 1000


@pytest.mark.parametrize(
    ("changes", "ratio"),
    [
        ({"pass_number": None}, 1.0),
        ({"pass_number": None, "epoch": None}, None),
        ({"pending": None}, None),
        ({"changes": 0, "pending": 0}, 1.0),
        ({"changes": 0}, 0.0),
    ],
)
def test_the_ratio_of_a_pass(changes: dict[str, int | None], ratio: float | None) -> None:
    assert pass_ratio(replace(STATUS, **changes)) == ratio
