"""Elasticsearch's official client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import elasticsearch
import msgspec
import urllib3
from elastic_transport import NodeConfig, Serializer, Urllib3HttpNode
from elastic_transport.client_utils import DEFAULT
from elasticsearch import (
    ApiError,
    ConnectionTimeout,
    Elasticsearch,
    SerializationError,
    TransportError,
    UnsupportedProductError,
)

from pillows.errors import ConfigError, PillowError, RetryableError
from pillows.strict_json import run_deeply
from pillows.transports.common.same_json import read_json
from pillows.transports.common.search.client import (
    JSON,
    NDJSON,
    AnswerError,
    SearchClient,
    encode_body,
    find_number,
    is_opensearch,
    make_ssl_context,
)
from pillows.transports.common.search.connection_pool import BoundedPool, limit_request
from pillows.transports.common.search.errors import to_connection_error
from pillows.transports.elasticsearch.options import ElasticsearchConnection

_PRODUCT = "Elasticsearch"


class Json(Serializer):
    """Reads JSON with msgspec, and sends bytes as they are."""

    mimetype = JSON

    def loads(self, data: bytes) -> Any:
        """Return the value of an answer; None if it is empty (413 has no body)."""
        try:
            return run_deeply(lambda: read_json(data)) if data else None
        except msgspec.DecodeError as error:
            raise SerializationError(f"the answer is not valid JSON: {error}") from error

    def dumps(self, data: bytes) -> bytes:
        """Return the body as it is; the client's own serializer of the bulk format would copy it twice."""
        return data


class Ndjson(Json):
    """The same for bodies in the bulk format."""

    mimetype = NDJSON


class Node(Urllib3HttpNode):
    """One node, with bounded answers."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self.bounded = BoundedPool(self.pool, _PRODUCT)

    def perform_request(
        self, method: str, target: str, body: Any = None, headers: Any = None, request_timeout: Any = DEFAULT
    ) -> Any:
        """Send a request; see `limit_request`."""
        seconds = self.config.request_timeout if request_timeout is DEFAULT else request_timeout
        with limit_request(float(seconds or 0), _PRODUCT) as limits:
            wanted: Any = limits
            return super().perform_request(method, target, body, headers, request_timeout=wanted)

    def close(self) -> None:
        """Close all connections."""
        super().close()
        self.bounded.close()


class ElasticsearchClient(SearchClient):
    """An Elasticsearch cluster, which is connected to when it is first used.

    Args:
        options: its settings.

    Raises:
        ConfigError: the certificates can't be read.
    """

    PRODUCT: ClassVar[str] = _PRODUCT
    SWEEP_ORDER: ClassVar[str] = "_version"

    def __init__(self, options: ElasticsearchConnection) -> None:
        more: dict[str, Any] = {}
        if options.auth and options.auth.api_key:
            more["api_key"] = options.auth.api_key.get_secret_value()
        elif options.auth and options.auth.username and options.auth.password:
            more["basic_auth"] = (options.auth.username, options.auth.password.get_secret_value())
        if options.ca_bundle:
            make_ssl_context(options.ca_bundle)  # the library would fail only at the first request
            more["ca_certs"] = str(options.ca_bundle)
        self.library = Elasticsearch(
            list(options.hosts),
            node_class=Node,
            request_timeout=options.timeout,
            max_retries=0,
            retry_on_timeout=False,
            retry_on_status=(),
            connections_per_node=options.connections_per_node,
            serializers={one.mimetype: one for one in (Json(), Ndjson())},
            **more,
        )

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return the answer's JSON; see `SearchClient.call`."""
        try:
            return self.library.perform_request(
                method,
                path,
                params=params,
                headers={"accept": JSON, "content-type": JSON} | dict(headers or {}),
                body=encode_body(body),
            ).body
        except UnsupportedProductError as error:
            raise _describe_stranger(error.body) from error
        except ApiError as error:
            raise AnswerError(_PRODUCT, error.meta.status, error.body, error.meta.headers) from error
        except TransportError as error:
            raise to_pillow_error(error) from error

    def check_product(self) -> None:
        """Refuse another product, and another major version than the client library's.

        The client's own requests ask for its version's answers ("compatible-with=9"), which an older server
        does not know. `*/*` is answered by every version.
        """
        number = find_number(self.call("GET", "/", headers={"accept": "*/*"}))
        major = number.partition(".")[0]
        if not (major.isascii() and major.isdigit()):
            raise ConfigError(
                "The server does not say which version of Elasticsearch it is.",
                remedy="correct `hosts`, and look for a proxy that answers in its place",
            )
        if major != str(elasticsearch.__version__[0]):
            ours = ".".join(map(str, elasticsearch.__version__))
            raise ConfigError(
                f"The server is Elasticsearch {number}, the client library is {ours}: "
                "their major versions must be the same.",
                remedy=f"use a server of version {elasticsearch.__version__[0]}, "
                "or a pillowd made for this server's version",
            )

    def close(self) -> None:
        """Close all connections."""
        self.library.close()


def to_pillow_error(error: TransportError) -> PillowError:
    """Return an error of the client without an answer as one of ours."""
    if isinstance(error, SerializationError):
        return RetryableError(str(error.message))
    # The client's own message is "Connection error"; the reason is in its cause.
    is_opened = not any(isinstance(one, urllib3.exceptions.ConnectTimeoutError) for one in error.errors)
    is_late = isinstance(error, ConnectionTimeout) and is_opened
    return to_connection_error(_PRODUCT, error.__cause__ or error, is_late=is_late)


def _describe_stranger(root: Any) -> ConfigError:
    if is_opensearch(root):
        return ConfigError(
            f"The server is OpenSearch {find_number(root)}.",
            remedy="write `type: opensearch` in this connection",
        )
    return ConfigError("The server does not say that it is Elasticsearch.", remedy="correct `hosts`")
