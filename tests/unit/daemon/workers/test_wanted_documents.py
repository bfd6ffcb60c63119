"""Which documents come with the feed when there are workers."""

from __future__ import annotations

import pytest

from daemon.config.load_options import LoadOptions
from daemon.config.models import PillowConfig
from daemon.workers.wanted_documents import LeftToWorkers, choose_documents
from pillows.feed.options import SourceOptions
from pillows.models import Change

CHANGE = Change(id="a", revs=("1-a",), leaf_version=1)


def settings(documents: str, *, workers: int = 0, isolate: bool = False) -> PillowConfig:
    source = SourceOptions(connection="couch", database="cases", documents=documents)
    return PillowConfig(source=source, transport=(), load=LoadOptions(workers=workers), isolate=isolate)


def keep(_: Change) -> bool:
    return True


@pytest.mark.parametrize("documents", ["auto", "include_docs"])
def test_documents_that_come_with_the_feed_are_wanted_as_before(documents):
    assert choose_documents(settings(documents, workers=2), keep) is keep
    assert choose_documents(settings(documents), None) is None


@pytest.mark.parametrize("prefilter", [keep, None])
def test_workers_fetch_documents_while_they_run(prefilter):
    wanted = choose_documents(settings("bulk_get", workers=2), prefilter)
    assert isinstance(wanted, LeftToWorkers)
    assert wanted(CHANGE)
    wanted.workers = 2
    assert not wanted(CHANGE)
    assert choose_documents(settings("bulk_get"), prefilter) is prefilter


def test_a_function_of_an_isolated_pillow_is_never_called_here():
    def crash(_: Change) -> bool:
        raise AssertionError("called")

    for documents in ("auto", "bulk_get"):
        wanted = choose_documents(settings(documents, isolate=True), crash)
        assert wanted is not None
        assert not wanted(CHANGE)
    assert choose_documents(settings("auto", isolate=True), None) is None
