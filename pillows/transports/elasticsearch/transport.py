"""Writes into Elasticsearch; see `SearchTransport`."""

from __future__ import annotations

from pillows.transports.common.search.client import SearchClient
from pillows.transports.common.search.options import SearchOutput
from pillows.transports.common.search.transport import SearchTransport
from pillows.transports.elasticsearch.mirror import ElasticsearchMirror
from pillows.transports.elasticsearch.options import ElasticsearchConnection


class ElasticsearchTransport(SearchTransport):
    """Writes into Elasticsearch. See `Transport` for the arguments and the promises."""

    TYPE = "elasticsearch"
    Connection = ElasticsearchConnection
    Output = SearchOutput
    mirror = ElasticsearchMirror()

    connection: ElasticsearchConnection

    def make_client(self) -> SearchClient:
        """Return a client of the cluster; see `SearchTransport.make_client`."""
        # Its client library takes 9 MB, which a configuration needs that writes there, not one that names it.
        from pillows.transports.elasticsearch.connection import ElasticsearchClient  # noqa: PLC0415

        return ElasticsearchClient(self.connection)
