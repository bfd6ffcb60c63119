"""OpenSearch's official client, which is installed with `pillowd[opensearch]`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from opensearchpy import ConnectionTimeout, OpenSearch, SerializationError, TransportError
from opensearchpy import Urllib3HttpConnection as LibraryNode
from opensearchpy.serializer import JSONSerializer

from pillows.couch.exception_chain import is_connect_failure
from pillows.errors import ConfigError, RetryableError
from pillows.strict_json import run_deeply
from pillows.transports.common.same_json import read_json
from pillows.transports.common.search.client import (
    JSON,
    AnswerError,
    SearchClient,
    encode_body,
    find_number,
    find_version,
    is_opensearch,
    make_ssl_context,
)
from pillows.transports.common.search.connection_pool import BoundedPool, limit_request
from pillows.transports.common.search.errors import to_connection_error
from pillows.transports.opensearch.options import OpensearchConnection

_PRODUCT = "OpenSearch"

#: Major versions whose answers are known.
SUPPORTED = ("2", "3")

_ANY_STATUS = range(300, 1000)


class Json(JSONSerializer):
    """Reads JSON with msgspec, and sends bytes as they are."""

    def loads(self, s: str) -> Any:
        """Return the value of an answer."""
        try:
            return run_deeply(lambda: read_json(s.encode()))
        except msgspec.DecodeError as error:
            raise SerializationError(f"the answer is not valid JSON: {error}") from error

    def dumps(self, data: bytes) -> bytes:
        """Return the body as it is."""
        return data


class Node(LibraryNode):
    """One node, with bounded answers. It logs nothing: the library would log documents."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        assert self.pool is not None  # noqa: S101  # it was made just now
        self.pool.block = True  # `connections_per_node` is a limit
        self.bounded = BoundedPool(self.pool, _PRODUCT)

    def perform_request(
        self,
        method: str,
        url: str,
        params: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        timeout: float | None = None,
        ignore: Collection[int] = (),  # noqa: ARG002  # every answer is ours
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request; see `limit_request`.

        Raises:
            AnswerError: the status is not 2xx. The library's own error has no headers.
        """
        with limit_request(timeout or self.timeout, _PRODUCT) as limits:
            wanted: Any = limits
            status, told, text = super().perform_request(
                method, url, params, body, timeout=wanted, ignore=_ANY_STATUS, headers=headers
            )
        if not 200 <= status < 300:
            raise AnswerError(_PRODUCT, status, _decode(text), told)
        return status, told, text

    def close(self) -> None:
        """Close all connections."""
        super().close()
        self.bounded.close()

    def log_request_success(self, *_args: Any, **_more: Any) -> None:
        """Log nothing."""

    def log_request_fail(self, *_args: Any, **_more: Any) -> None:
        """Log nothing: the pillow reports its retries."""

    def _raise_warnings(self, warning_headers: Any) -> None:
        """Ignore deprecations, which concern us and not the operator."""


class OpensearchClient(SearchClient):
    """An OpenSearch cluster, which is connected to when it is first used.

    Args:
        options: its settings.

    Raises:
        ConfigError: the certificates can't be read.
    """

    PRODUCT: ClassVar[str] = _PRODUCT
    SWEEP_ORDER: ClassVar[str] = "_doc"  # it can't sort by `_version`

    def __init__(self, options: OpensearchConnection) -> None:
        more: dict[str, Any] = {}
        if options.auth and options.auth.token:
            more["headers"] = {"authorization": f"Bearer {options.auth.token.get_secret_value()}"}
        elif options.auth and options.auth.username and options.auth.password:
            more["http_auth"] = (options.auth.username, options.auth.password.get_secret_value())
        self.library = OpenSearch(
            list(options.hosts),
            connection_class=Node,
            serializer=Json(),
            ssl_context=make_ssl_context(options.ca_bundle),
            timeout=options.timeout,
            max_retries=0,
            retry_on_timeout=False,
            retry_on_status=(),
            pool_maxsize=options.connections_per_node,
            **more,
        )
        self._timeout = options.timeout

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
            answer = self.library.transport.perform_request(
                method,
                path,
                params=dict(params or {}),
                body=encode_body(body),
                timeout=self._timeout,  # otherwise it would take the server's from `params`
                headers={"accept": JSON, "content-type": JSON} | dict(headers or {}),
            )
        except SerializationError as error:
            raise RetryableError(str(error)) from error
        except TransportError as error:
            cause = error.info if isinstance(error.info, BaseException) else error
            is_late = isinstance(error, ConnectionTimeout) and not is_connect_failure(cause)
            raise to_connection_error(_PRODUCT, cause, is_late=is_late) from error
        if isinstance(answer, str):  # of another type than JSON
            if answer:
                raise RetryableError(f"{_PRODUCT} answered a text that is not JSON.")
            return None
        return answer

    def check_product(self) -> None:
        """Refuse another product, and a version whose answers are not known."""
        root = self.call("GET", "/")
        number = find_number(root)
        if not is_opensearch(root):
            raise _describe_stranger(root, number)
        if number.partition(".")[0] not in SUPPORTED:
            raise ConfigError(
                f"The server is OpenSearch {number}, which this pillowd does not know.",
                remedy=f"use a server of version {' or '.join(SUPPORTED)}; if it is one, set "
                "`compatibility.override_main_response_version` there to false",
            )

    def close(self) -> None:
        """Close all connections, also those to nodes that failed."""
        nodes: Sequence[Any] = self.library.transport.seed_connections
        for node in nodes:
            node.close()


def _decode(text: str) -> Any:
    """Return the body of an error: JSON, or the text of a proxy."""
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return text


def _describe_stranger(root: Any, number: str) -> ConfigError:
    if find_version(root).get("build_flavor") or (
        isinstance(root, dict) and root.get("tagline") == "You Know, for Search"
    ):
        return ConfigError(
            f"The server is Elasticsearch {number}.", remedy="write `type: elasticsearch` in this connection"
        )
    return ConfigError("The server does not say that it is OpenSearch.", remedy="correct `hosts`")
