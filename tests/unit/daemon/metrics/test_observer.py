"""Each hook moves its series, and nothing of a tail that is not there."""

from __future__ import annotations

from msgspec.structs import replace

from checkpoints import Checkpoint, Seq, TailKey
from daemon.metrics.catalogue import REWINDS, STAGES
from pillows.observer import Rewind
from tests.unit.daemon.metrics.conftest import KEY, LABELS, STATUS, Scrape


def test_changes_are_counted(scrape: Scrape) -> None:
    scrape.metrics.observer.change(KEY, count=10, kept=5, filtered=3)
    assert scrape["pillowd_changes_total{pillow=cases}"] == 10
    assert scrape["pillowd_changes_filtered_total{pillow=cases}"] == 3


def test_a_written_batch_is_counted_for_its_transport_alone(scrape: Scrape) -> None:
    documents = {"applied": 4, "equal": 3, "stale": 2, "dead": 1}
    observer = scrape.metrics.observer
    observer.in_flight(KEY, transport="search", batches=2)
    assert "pillowd_delivery_last_success_timestamp_seconds{" not in scrape.text
    observer.write(KEY, transport="search", documents=documents, size_bytes=500, seconds=0.3)
    at = "{pillow=cases,transport=search"
    for result, count in documents.items():
        assert scrape[f"pillowd_documents_total{at},result={result}}}"] == count
    assert scrape[f"pillowd_written_bytes_total{at}}}"] == 500
    assert scrape[f"pillowd_in_flight_batches{at}}}"] == 2
    assert scrape[f"pillowd_batch_duration_seconds_bucket{at},le=0.25}}"] == 0
    assert scrape[f"pillowd_batch_duration_seconds_bucket{at},le=1.0}}"] == 1
    assert scrape[f"pillowd_delivery_last_success_timestamp_seconds{at}}}"] == 1000
    assert scrape["pillowd_documents_total{pillow=cases,transport=warehouse,result=applied}"] == 0
    assert scrape["pillowd_stage_seconds_total{pillow=cases,stage=write}"] == 0.3


def test_a_checkpoint_ends_what_is_not_checkpointed(scrape: Scrape) -> None:
    observer, series = scrape.metrics.observer, "pillowd_uncheckpointed_changes{pillow=cases}"
    observer.acknowledged(KEY, changes=7, seconds=0.2)
    observer.warning(KEY, event="checkpoint.not_saved", details={"error": "full"})
    assert scrape[series] == 7
    assert scrape["pillowd_checkpoint_saves_total{pillow=cases,result=error}"] == 1
    observer.checkpoint(KEY, checkpoint=Checkpoint(seq=Seq.of("1-x")), seconds=0.1)
    assert scrape[series] == 0
    assert scrape["pillowd_checkpoint_saves_total{pillow=cases,result=ok}"] == 1
    assert scrape["pillowd_delivery_latency_seconds_count{pillow=cases}"] == 1
    observer.acknowledged(KEY, changes=7, seconds=0.2)
    observer.state(KEY, state="starting", reason="")
    assert scrape[series] == 0, "the next run takes them again"


def test_trouble_is_counted_by_kind(scrape: Scrape) -> None:
    observer = scrape.metrics.observer
    for where in ("source", "checkpoint", "warehouse", "search"):
        observer.retry(KEY, where=where, error="away", attempt=1, delay_seconds=1)
    observer.dead_letter(KEY, transport="search", id="a", stage="transport", error="mapping")
    observer.warning(KEY, event="transports.diverged", details={"id": "a"})
    for kind in Rewind:
        observer.rewind(KEY, kind=kind, reason="why")
    for stage in STAGES:
        observer.stage(KEY, stage=stage, seconds=1.5)
    for where, count in {"source": 1, "checkpoint": 1, "target": 2}.items():
        assert scrape[f"pillowd_retries_total{{pillow=cases,where={where}}}"] == count
    assert scrape["pillowd_dead_letters_added_total{pillow=cases,stage=transport}"] == 1
    assert scrape["pillowd_divergences_total{pillow=cases}"] == 1
    assert [scrape[f"pillowd_rewinds_total{{pillow=cases,kind={kind}}}"] for kind in REWINDS] == [1] * 4
    assert scrape["pillowd_stage_seconds_total{pillow=cases,stage=trigger}"] == 1.5


def test_a_comparison_leaves_its_differences_and_its_time(scrape: Scrape) -> None:
    assert "pillowd_verify_differences{" not in scrape.text, "0 would be a claim"
    assert "pillowd_verify_last_run_timestamp_seconds{" not in scrape.text
    scrape.clock.advance(5)
    scrape.metrics.observer.verified(KEY, differences={"search": {"missing": 2}, "gone": {"extra": 1}})
    found = {name: value for name, value in scrape.series().items() if "verify_differences" in name}
    kinds = {"missing": 2, "stale": 0, "extra": 0}
    at = "pillow=cases,transport=search"
    assert found == {f"pillowd_verify_differences{{kind={k},{at}}}": v for k, v in kinds.items()}
    assert scrape["pillowd_verify_last_run_timestamp_seconds{pillow=cases}"] == 1005


def test_a_comparison_that_is_due_but_never_ran_ages_from_the_start(scrape: Scrape) -> None:
    series = "pillowd_verify_last_run_timestamp_seconds{pillow=cases}"
    scrape.start(KEY, replace(LABELS, verifies=True))
    assert scrape[series] == 1000
    scrape.clock.advance(60)
    scrape.start(KEY, replace(LABELS, verifies=True))
    assert scrape[series] == 1000


def test_a_removed_tail_leaves_no_series_and_is_not_counted_any_more(scrape: Scrape) -> None:
    observer = scrape.metrics.observer
    before = len(scrape.series())
    other = TailKey("other", "couch/other")
    scrape.start(other, LABELS)
    observer.verified(other, differences={"search": {"missing": 2}})
    del scrape.tails[other]
    observer.change(other, count=1, kept=1, filtered=0)
    assert scrape["pillowd_changes_total{pillow=other}"] == 1, "it drains"
    observer.removed(other)
    observer.change(other, count=1, kept=1, filtered=0)
    observer.write(other, transport="search", documents={"applied": 1}, size_bytes=1, seconds=1)
    assert len(scrape.series()) == before
    assert 'pillow="other"' not in scrape.text


def test_a_removed_transport_leaves_no_series(scrape: Scrape) -> None:
    scrape.start(KEY, replace(LABELS, transports=("warehouse",)))
    assert "search" not in scrape.text
    assert scrape["pillowd_written_bytes_total{pillow=cases,transport=warehouse}"] == 0


def test_a_pillow_that_reads_another_source_keeps_its_series(scrape: Scrape) -> None:
    observer = scrape.metrics.observer
    observer.change(KEY, count=3, kept=3, filtered=0)
    moved = TailKey("cases", "couch/elsewhere")
    scrape.start(moved, replace(LABELS, source="elsewhere"))
    scrape.statuses = [replace(STATUS, source="couch/elsewhere")]
    del scrape.tails[KEY]
    observer.removed(KEY)
    observer.change(moved, count=4, kept=4, filtered=0)
    assert scrape["pillowd_changes_total{pillow=cases}"] == 7
    assert scrape["pillowd_pillow_info{pillow=cases,connection=couch,source=elsewhere}"] == 1
