"""Writes into Elasticsearch; see `SearchTransport`."""

from __future__ import annotations

from collections.abc import Mapping

from pillows.transports.common.search.client import SearchClient
from pillows.transports.common.search.transport import SearchTransport
from pillows.transports.elasticsearch.connection import ElasticsearchClient
from pillows.transports.elasticsearch.mirror import ElasticsearchMirror
from pillows.transports.elasticsearch.options import ElasticsearchConnection, ElasticsearchOutput


class ElasticsearchTransport(SearchTransport):
    """Writes into Elasticsearch. See `Transport` for the arguments and the promises."""

    TYPE = "elasticsearch"
    Connection = ElasticsearchConnection
    Output = ElasticsearchOutput
    mirror = ElasticsearchMirror()

    connection: ElasticsearchConnection
    outputs: Mapping[str, ElasticsearchOutput]

    def make_client(self) -> SearchClient:
        """Return a client of the cluster; see `SearchTransport.make_client`."""
        return ElasticsearchClient(self.connection)
