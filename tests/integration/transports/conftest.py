"""Search clusters, as a test's own indices see them, and a Kafka broker to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pillows.transports.opensearch.transport import OpensearchTransport
from tests.conftest import start_for_tests
from tests.integration.transports.search_index import Node
from tests.servers.kafka import Kafka


@pytest.fixture
def node(elasticsearch_url: str, es_prefix: str) -> Node:
    """An Elasticsearch server, with names that no other test has."""
    return Node(elasticsearch_url, es_prefix)


@pytest.fixture(params=["elasticsearch", "opensearch"])
def each_node(request: pytest.FixtureRequest, es_prefix: str) -> Node:
    """An Elasticsearch server, and then an OpenSearch server."""
    return _get_node(request, es_prefix)


@pytest.fixture(params=["elasticsearch", pytest.param("opensearch", marks=pytest.mark.proof)])
def node_in_proof(request: pytest.FixtureRequest, es_prefix: str) -> Node:
    """The same, but OpenSearch only at full size, where it answers as Elasticsearch does."""
    return _get_node(request, es_prefix)


def _get_node(request: pytest.FixtureRequest, prefix: str) -> Node:
    if request.param == "elasticsearch":
        return Node(request.getfixturevalue("elasticsearch_url"), prefix)
    return Node(request.getfixturevalue("opensearch_url"), prefix, OpensearchTransport)


@pytest.fixture(scope="session")
def own_kafka() -> Iterator[Kafka]:
    """A broker that tests may stop: it takes as long to start as they take."""
    with ExitStack() as stack:
        server = Kafka()
        start_for_tests(stack, server)
        yield server
