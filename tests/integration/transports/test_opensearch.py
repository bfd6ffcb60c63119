"""The conformance suite on a real OpenSearch node."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pillows.transports.opensearch.transport import OpensearchTransport
from tests.conformance.history import History
from tests.conformance.target import Target
from tests.conftest import start_for_tests
from tests.integration.transports.search_target import SearchConformance, SearchTarget
from tests.servers.opensearch import OpenSearch
from tests.support.sizes import size


@pytest.fixture(scope="module")
def own_server() -> Iterator[OpenSearch]:
    """A server to restart, for all tests that do: it takes as long to start as they take."""
    with ExitStack() as stack:
        server = OpenSearch()
        start_for_tests(stack, server)
        yield server


class TestG11OpensearchConformance(SearchConformance):
    kind = OpensearchTransport
    deletes = "hard"

    @pytest.mark.proof
    def test_an_older_version_is_refused_after_a_restart_of_the_target(self, target: Target) -> None:
        super().test_an_older_version_is_refused_after_a_restart_of_the_target(target)

    @pytest.mark.proof
    @pytest.mark.parametrize("seed", range(100, 100 + size(ci=2, proof=50)))
    def test_many_histories_converge(self, target: SearchTarget, seed: int) -> None:
        History(target, random.Random(seed)).play(steps=60)


@pytest.mark.proof
class TestG11OpensearchTombstonesConformance(SearchConformance):
    kind = OpensearchTransport
    deletes = "tombstone"
