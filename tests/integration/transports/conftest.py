"""An Elasticsearch server, as a test's own indices see it."""

from __future__ import annotations

import pytest

from tests.integration.transports.elasticsearch_index import Node


@pytest.fixture
def node(elasticsearch_url: str, es_prefix: str) -> Node:
    """The server, with names that no other test has."""
    return Node(elasticsearch_url, es_prefix)
