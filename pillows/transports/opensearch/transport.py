"""Writes into OpenSearch; see `SearchTransport`."""

from __future__ import annotations

from pillows.errors import ConfigError
from pillows.transports.common.search.client import SearchClient
from pillows.transports.common.search.options import SearchOutput
from pillows.transports.common.search.transport import SearchTransport
from pillows.transports.opensearch.mirror import OpensearchMirror
from pillows.transports.opensearch.options import OpensearchConnection


class OpensearchTransport(SearchTransport):
    """Writes into OpenSearch. See `Transport` for the arguments and the promises."""

    TYPE = "opensearch"
    Connection = OpensearchConnection
    Output = SearchOutput
    mirror = OpensearchMirror()

    connection: OpensearchConnection

    def make_client(self) -> SearchClient:
        """Return a client of the cluster; see `SearchTransport.make_client`."""
        try:
            # Imported here: it is an extra, and configurations name types whose libraries are missing.
            from pillows.transports.opensearch.connection import OpensearchClient  # noqa: PLC0415  see above
        except ModuleNotFoundError as error:
            if error.name != "opensearchpy":
                raise
            raise ConfigError(
                "OpenSearch's client library is not installed.",
                remedy="pip install 'pillowd[opensearch]' (from a checkout: pip install opensearch-py)",
            ) from error
        return OpensearchClient(self.connection)
