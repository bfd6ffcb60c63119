"""A load with worker processes: a pillow of a configuration, a real source, and an end at the head."""

from __future__ import annotations

import os
import signal

import pytest

from pillows.errors import ConfigError
from tests.integration.worker_load import DOCUMENTS
from tests.support.sizes import size

#: At full size a load takes minutes.
pytestmark = pytest.mark.timeout(size(ci=300, proof=1800))

COMPLETE = {f"d{n:06}": n for n in range(DOCUMENTS)}


@pytest.mark.parametrize("documents", ["include_docs", "bulk_get"])
def test_workers_carry_the_load_and_end_at_the_head(start_load, documents):
    load = start_load(
        """
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
        """,
        documents=documents,
    )
    load.until_live()
    assert load.numbers == COMPLETE
    assert os.getpid() not in {pid for _, pid in load.rows.values()}
    assert 2 in [each["count"] for each in load.recorder.of("workers")]
    load.until(lambda: not load.workers)
    assert load.finish().changes == DOCUMENTS


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("filter: { jmespath: \"id < 'd001000'\" }", lambda n: n < 1000),
        ('transform: { python: "FUNCTIONS:many", chunk: 50 }', lambda n: True),
    ],
    ids=["a filter of the change", "chunks"],
)
def test_other_pipelines_give_the_same_rows_in_workers(start_load, steps, kept):
    load = start_load(f"load: {{ workers: 2 }}\n{steps}")
    load.until_live()
    assert load.numbers == {id: n for id, n in COMPLETE.items() if kept(n)}
    assert not load.recorder.of("dead_letter")
    taken = load.recorder.of("change")
    assert sum(each["count"] for each in taken) == DOCUMENTS
    assert sum(each["kept"] for each in taken) == len(load.numbers)


def test_a_document_that_fails_in_a_worker_is_the_same_dead_letter(start_load):
    load = start_load("""
        load: { workers: 1 }
        transform: { python: "FUNCTIONS:refuse" }
    """)
    load.until_live()
    (letter,) = load.recorder.of("dead_letter")
    assert (letter["id"], letter["stage"]) == ("d000077", "transform")
    assert "ValueError: no 77" in letter["error"]
    assert load.numbers == {id: n for id, n in COMPLETE.items() if n != 77}


def test_a_stop_ends_the_workers_and_the_next_run_goes_on(start_load):
    load = start_load("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """)
    load.until(lambda: len(load.rows) > 100)
    checkpoint = load.finish()
    assert load.workers == []
    assert checkpoint.changes == len(load.rows)
    again = start_load("""
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:slow" }
    """)
    again.until_live()
    assert again.numbers == COMPLETE


def test_an_isolated_pillow_keeps_one_worker_at_the_head(start_load, couch_db):
    load = start_load("""
        isolate: true
        transform: { python: "FUNCTIONS:rows" }
    """)
    load.until_live()
    (worker,) = load.workers
    couch_db.put("late", {"n": 1_000_000})
    load.until(lambda: "late" in load.rows)
    assert {pid for _, pid in load.rows.values()} == {worker}
    os.kill(worker, signal.SIGKILL)
    couch_db.put("later", {"n": 1_000_001})
    load.until(lambda: "later" in load.rows)
    assert load.rows["later"][1] not in {worker, os.getpid()}


def test_a_function_that_was_changed_meanwhile_is_not_called_in_workers(start_load, couch_db):
    """The daemon goes on alone, with the functions that it has."""
    load = start_load(
        """
        load: { workers: 2 }
        transform: { python: "FUNCTIONS:rows" }
        """,
        change_code=True,
    )
    load.until_live()
    assert load.numbers == COMPLETE
    assert {pid for _, pid in load.rows.values()} == {os.getpid()}
    assert load.recorder.events() == ["workers.refused"]


def test_an_isolated_pillow_stops_when_its_function_was_changed(start_load):
    load = start_load(
        """
        isolate: true
        transform: { python: "FUNCTIONS:rows" }
        """,
        change_code=True,
    )
    with pytest.raises(ConfigError, match="changed since the daemon imported them"):
        load.greenlet.get(timeout=60)
