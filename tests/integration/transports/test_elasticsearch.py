"""The conformance suite on a real Elasticsearch node."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pillows.transports.elasticsearch.transport import ElasticsearchTransport
from tests.conformance.history import History
from tests.conftest import start_for_tests
from tests.integration.transports.search_target import SearchConformance, SearchTarget
from tests.servers.elasticsearch import Elasticsearch
from tests.support.sizes import size


@pytest.fixture(scope="module")
def own_server() -> Iterator[Elasticsearch]:
    """A server to restart, for all tests that do: it takes as long to start as they take."""
    with ExitStack() as stack:
        server = Elasticsearch()
        start_for_tests(stack, server)
        yield server


class TestElasticsearchConformance(SearchConformance):
    kind = ElasticsearchTransport
    deletes = "hard"

    @pytest.mark.parametrize("seed", range(100, 100 + size(ci=2, proof=50)))
    def test_many_histories_converge(self, target: SearchTarget, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)


class TestElasticsearchTombstonesConformance(SearchConformance):
    kind = ElasticsearchTransport
    deletes = "tombstone"
