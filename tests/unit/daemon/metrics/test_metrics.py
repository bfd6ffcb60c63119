"""The rendered metrics are those of the catalogue, piece by piece."""

from __future__ import annotations

import gzip

import gevent
from msgspec.structs import replace
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from checkpoints import TailKey
from daemon.metrics.catalogue import CATALOGUE, CONFIGURED
from daemon.metrics.texts import Texts
from daemon.reload.reloader import ReloadRecord
from tests.unit.daemon.metrics.conftest import KEY, LABELS, STATUS, Scrape


def use_everything(scrape: Scrape) -> None:
    """Give the series a value that are not there before."""
    scrape.metrics.observer.verified(KEY, differences={name: {} for name in LABELS.transports})
    for name in LABELS.transports:
        scrape.metrics.observer.write(KEY, transport=name, documents={}, size_bytes=0, seconds=0)
    scrape.requests["get_metrics", "GET", 200] += 1


def test_every_family_of_the_catalogue_is_there_with_its_type_help_and_labels(scrape: Scrape) -> None:
    use_everything(scrape)
    found = {}
    for family in parse_text(scrape.text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if not name.startswith("process_"):
            found[name] = family
    assert found.keys() == CATALOGUE.keys()
    for name, family in found.items():
        metric = CATALOGUE[name]
        assert (family.type, family.documentation) == (metric.type, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
            assert not sample.name.endswith("_created")
            for label, values in metric.labels.items():
                assert values == CONFIGURED or sample.labels[label] in values
        if metric.buckets:
            assert {s.labels["le"] for s in family.samples if "le" in s.labels} == {
                *(str(bound) for bound in metric.buckets),
                "+Inf",
            }


def test_every_value_of_a_label_is_there_from_the_beginning(scrape: Scrape) -> None:
    late = {
        "pillowd_verify_differences",
        "pillowd_databases",
        "pillowd_backfill_documents",
    }  # if any
    for name, metric in CATALOGUE.items():
        for label, values in metric.labels.items():
            if values != CONFIGURED and name not in late:
                shown = {
                    sample.labels[label]
                    for family in parse_text(scrape.text)
                    for sample in family.samples
                    if sample.name == name
                }
                assert shown == set(values), name


def test_who_asks_for_open_metrics_gets_them(scrape: Scrape) -> None:
    page = scrape.metrics.render("application/openmetrics-text; version=1.0.0")
    text = page.text
    assert page.media_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert text.count(b"# EOF") == 1
    assert {family.name for family in parse_open(text.decode())} >= {"pillowd_changes", "pillowd_tails"}
    assert scrape.metrics.render().media_type == "text/plain; version=0.0.4; charset=utf-8"


def test_who_takes_gzip_gets_the_same_packed(scrape: Scrape) -> None:
    packed = scrape.metrics.render(accept_encoding="br, gzip;q=0.5")
    assert packed.encoding == "gzip"
    text = gzip.decompress(packed.text).decode()
    assert [line for line in text.splitlines() if "process_" not in line] == [
        line for line in scrape.text.splitlines() if "process_" not in line
    ]


def test_a_family_of_many_pieces_has_one_heading_and_every_series_once(scrape: Scrape) -> None:
    for number in range(100):
        scrape.start(TailKey(f"p{number}", "couch/x"), LABELS)
    lines = scrape.text.splitlines()
    assert lines.count("# TYPE pillowd_batch_duration_seconds histogram") == 1
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(series) == len(set(series))
    counts = [each for each in series if each.startswith("pillowd_batch_duration_seconds_count{")]
    assert len(counts) == 101 * len(LABELS.transports)


def test_the_hub_turns_in_between(scrape: Scrape) -> None:
    for number in range(100):
        scrape.start(TailKey(f"p{number}", "couch/x"), LABELS)
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    other = gevent.spawn(count)
    scrape.metrics.render()
    other.kill()
    assert turns >= 5


def test_names_of_the_configuration_are_escaped(scrape: Scrape) -> None:
    scrape.start(TailKey('a"b\n', "couch/x"), LABELS)
    assert r'pillowd_changes_total{pillow="a\"b\n"} 0' in scrape.text


def test_the_configuration_that_runs_has_its_time(scrape: Scrape) -> None:
    name = "pillowd_config_last_reload"
    scrape.reload = ReloadRecord(successful=False, succeeded_at=950.0)
    assert (scrape[f"{name}_successful{{}}"], scrape[f"{name}_success_timestamp_seconds{{}}"]) == (0, 950)


def test_a_kept_text_is_what_a_fresh_one_would_be(scrape: Scrape) -> None:
    """The kept parts of a text are right after changes, removals and new transports."""
    other = TailKey("other", "couch/x")

    def check() -> None:
        kept = scrape.text
        scrape.metrics._texts.clear()
        fresh = scrape.text
        for text in (kept, fresh):
            assert text.count("# TYPE pillowd_changes_total") == 1
        assert sorted(_lines(kept)) == sorted(_lines(fresh))

    check()
    scrape.start(other, LABELS)
    check()
    scrape.metrics.observer.change(other, count=3, kept=3, filtered=0)
    assert 'pillowd_changes_total{pillow="other"} 3' in scrape.text
    check()
    scrape.start(other, replace(LABELS, transports=("search",)))
    assert 'pillow="other",transport="warehouse"' not in scrape.text
    check()
    scrape.statuses = [replace(STATUS, pillow=name) for name in ("a", "b")]
    check()
    scrape.tails.pop(other)
    scrape.metrics.observer.removed(other)
    assert 'pillow="other"' not in scrape.text
    check()


def test_a_kept_text_knows_of_workers_that_come_and_end(scrape: Scrape) -> None:
    assert 'pillowd_workers{pillow="cases"} 0' in scrape.text
    scrape.metrics.observer.workers(KEY, count=2)
    assert 'pillowd_workers{pillow="cases"} 2' in scrape.text
    scrape.metrics.observer.worker_ended(KEY, pid=7, cause="crash", how="SIGSEGV")
    assert 'pillowd_worker_restarts_total{pillow="cases"} 1' in scrape.text


def test_a_pillow_that_did_nothing_is_not_written_again(scrape: Scrape) -> None:
    names = [f"p{number}" for number in range(50)]
    for name in names:
        scrape.start(TailKey(name, "couch/x"), LABELS)
    scrape.statuses = [replace(STATUS, pillow=name) for name in names]
    texts = Texts(generate_latest)
    written: list[str] = []
    write = texts.write_family

    def noting(family: Family) -> bytes:
        written.extend(sample.labels["pillow"] for sample in family.samples if "pillow" in sample.labels)
        return write(family)

    texts.write_family = noting
    list(scrape.metrics._render_pieces(texts))
    assert set(written) >= set(names)
    written.clear()
    scrape.metrics.observer.change(TailKey("p7", "couch/x"), count=1, kept=1, filtered=0)
    scrape.clock.advance(60)  # what is younger than half a second stays
    list(scrape.metrics._render_pieces(texts))
    counted = [name for name in written if name == "p7"]
    assert counted
    assert len(written) < 3 * len(names) + len(counted) + len(LABELS.transports)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("process_")]


def test_a_backfill_shows_its_progress_its_rate_and_the_time_to_go(scrape: Scrape) -> None:
    assert "pillowd_backfill_documents{" not in scrape.text
    sent = {"documents": None, "done": 60, "failed": 10, "per_second": 5.0, "seconds_to_go": None}
    scrape.backfill = sent
    assert 'outcome="left"' not in scrape.text, "not known until all are listed"
    scrape.backfill = {**sent, "documents": 100, "seconds_to_go": 6.0}
    expected = {
        "pillowd_backfill_documents{pillow=cases,outcome=done}": 60,
        "pillowd_backfill_documents{pillow=cases,outcome=failed}": 10,
        "pillowd_backfill_documents{pillow=cases,outcome=left}": 30,
        "pillowd_backfill_documents_per_second{pillow=cases}": 5.0,
        "pillowd_backfill_seconds_to_go{pillow=cases}": 6.0,
    }
    assert {name: scrape[name] for name in expected} == expected


def test_a_rebuild_shows_its_state_and_whether_it_waits(scrape: Scrape) -> None:
    lines = [
        line
        for line in scrape.text.splitlines()
        if line.startswith("pillowd_rebuild") and line.endswith(" 1.0")
    ]
    assert lines == [
        'pillowd_rebuild_state{pillow="cases",state="ready"} 1.0',
        'pillowd_rebuild_waiting{pillow="cases"} 1.0',
    ]
