"""The official client, set up so that waiting and retrying stay ours.

The client does not retry: the pipeline does, and can be stopped. Bodies pass through as bytes: we build
the bulk format ourselves, and msgspec reads the answers.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, NamedTuple

import elasticsearch
import gevent
import msgspec
import urllib3
from elastic_transport import NodeConfig, Serializer, Urllib3HttpNode
from elastic_transport.client_utils import DEFAULT
from elasticsearch import (
    Elasticsearch,
    SerializationError,
)
from urllib3.connection import HTTPConnection

from pillows.couch.http.bounded_response import BoundedResponse, read_bounded
from pillows.errors import ConfigError, RetryableError
from pillows.tcp_keepalive import SOCKET_OPTIONS
from pillows.transports.elasticsearch.errors import translate_errors
from pillows.transports.elasticsearch.options import ElasticsearchConnection

#: Limit for opening a connection. Longer than the kernel's second and third attempt (1 s and 3 s after
#: the first), far shorter than a request may take.
CONNECT_SECONDS = 5.0

#: A longer answer is given up: those of our requests are far shorter.
MAX_ANSWER_BYTES = 64 * 2**20


class _Answer(NamedTuple):
    status: int
    headers: Any
    data: bytes


class Json(Serializer):
    """Reads and writes JSON with msgspec."""

    mimetype = "application/json"

    def loads(self, data: bytes) -> Any:
        """Return the value of an answer; None if it is empty (413 has no body)."""
        try:
            return msgspec.json.decode(data) if data else None
        except msgspec.DecodeError as error:
            raise SerializationError(f"the answer is not valid JSON: {error}") from error

    def dumps(self, data: Any) -> bytes:
        """Return a value as JSON, and bytes as they are."""
        return data if isinstance(data, bytes) else msgspec.json.encode(data)


class Ndjson(Json):
    """Passes bodies in the bulk format through; the client's own serializer would copy them twice."""

    mimetype = "application/x-ndjson"


class Node(Urllib3HttpNode):
    """One node: connecting is limited, and all connections end when the client is closed.

    A greenlet that is killed just after urllib3 has taken a connection out of its pool leaves it open
    and unknown to the pool.
    """

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._make = self.pool.ConnectionCls
        self._made: set[Any] = set()
        self.pool.conn_kw["socket_options"] = (*HTTPConnection.default_socket_options, *SOCKET_OPTIONS)
        self.pool.ConnectionCls = self._remember  # type: ignore[assignment]  # called, never inherited
        self._urlopen = self.pool.urlopen
        self.pool.urlopen = self._open_bounded  # type: ignore[method-assign]  # reads all of any answer

    def perform_request(
        self, method: str, target: str, body: Any = None, headers: Any = None, request_timeout: Any = DEFAULT
    ) -> Any:
        """Send a request, with less time for opening a connection than for the answer."""
        seconds = self.config.request_timeout if request_timeout is DEFAULT else request_timeout
        limits: Any = urllib3.Timeout(total=seconds, connect=min(CONNECT_SECONDS, seconds or CONNECT_SECONDS))
        # urllib3's own limits are for the next byte: an answer that trickles would take forever.
        late = RetryableError(f"Elasticsearch did not answer within {seconds} s.")
        with gevent.Timeout(seconds and 2 * seconds, late):
            return super().perform_request(method, target, body, headers, request_timeout=limits)

    def close(self) -> None:
        """Close all connections."""
        super().close()
        for connection in self._made:
            connection.close()

    def _remember(self, *args: Any, **kwargs: Any) -> Any:
        connection: Any = self._make(*args, **kwargs)
        connection.response_class = BoundedResponse
        self._made = {one for one in self._made if one.sock is not None} | {connection}
        return connection

    def _open_bounded(self, *args: Any, **kwargs: Any) -> Any:
        response: Any = self._urlopen(*args, **kwargs | {"preload_content": False})
        try:
            data = read_bounded(response, MAX_ANSWER_BYTES)
        except BaseException:
            response.close()
            raise
        if len(data) > MAX_ANSWER_BYTES:
            response.close()  # the rest is not read
            raise RetryableError(f"The answer of Elasticsearch is longer than {MAX_ANSWER_BYTES} bytes.")
        response.release_conn()
        return _Answer(response.status, response.headers, data)


def connect(options: ElasticsearchConnection) -> Elasticsearch:
    """Return a client, which connects when it is first used.

    Raises:
        ConfigError: the certificates can't be read.
    """
    auth: dict[str, Any] = {}
    if options.auth and options.auth.api_key:
        auth["api_key"] = options.auth.api_key.get_secret_value()
    elif options.auth and options.auth.username and options.auth.password:
        auth["basic_auth"] = (options.auth.username, options.auth.password.get_secret_value())
    if options.ca_bundle:
        auth["ca_certs"] = _check_readable(options.ca_bundle)
    return Elasticsearch(
        list(options.hosts),
        node_class=Node,
        request_timeout=options.timeout,
        max_retries=0,
        retry_on_timeout=False,
        retry_on_status=(),
        connections_per_node=options.connections_per_node,
        serializers={one.mimetype: one for one in (Json(), Ndjson())},
        **auth,
    )


def _check_readable(ca_bundle: Path) -> str:
    """Return the path if its certificates can be read; the client would fail only at the first request."""
    try:
        ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:  # a missing file, or ssl.SSLError for one that holds no certificate
        raise ConfigError(
            f"The certificates in {ca_bundle} can't be read: {error}.", remedy="correct `ca_bundle`"
        ) from error
    return str(ca_bundle)


def check_version(client: Elasticsearch) -> None:
    """Refuse a server of another major version than the client library's.

    The client asks for its own version's answers ("compatible-with=9"), which an older server does
    not know. `*/*` is answered by every version.

    Raises:
        ConfigError: the versions differ, or the server is not Elasticsearch.
        RetryableError, AccessError: see `translate_errors`.
    """
    with translate_errors():
        answer = client.perform_request("GET", "/", headers={"accept": "*/*"})
    number = _find_version(answer.body)
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


def _find_version(body: Any) -> str:
    version = body.get("version") if isinstance(body, dict) else None
    return str(version.get("number", ""))[:40] if isinstance(version, dict) else ""
