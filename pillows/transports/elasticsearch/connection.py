"""The official client, set up so that waiting and retrying stay ours, and its errors as our own.

No retries and no back-off inside the client: the pipeline has one, which knows about stops. Bodies
go through as bytes: we build the bulk format ourselves, and msgspec reads the answers.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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

from pillows.errors import AccessError, AwayError, ConfigError, FatalError, PillowError, RetryableError
from pillows.transports.elasticsearch.options import ElasticsearchConnection

#: Errors that pass, whatever status they come with: a blocked index answers 403 or 429, a closed
#: one 400 (all recorded on 9.5).
PASSING = frozenset(
    {
        "circuit_breaking_exception",
        "cluster_block_exception",
        "es_rejected_execution_exception",
        "index_closed_exception",
        "master_not_discovered_exception",
        "no_shard_available_action_exception",
        "process_cluster_event_timeout_exception",
        "search_phase_execution_exception",
        "unavailable_shards_exception",
    }
)

#: Of Elasticsearch without a master or with closed shards, and of a balancer without Elasticsearch.
_NOT_SERVING = {502, 503, 504}

#: How long opening a connection may take. Longer than the second and third try of the kernel's (1 s
#: and 3 s after the first), far shorter than the time that a request may take.
CONNECT_SECONDS = 5.0

#: A peer that has vanished (power, a firewall that forgot us) is noticed after some 20 s, where a request
#: would wait for its full time; one that only takes long answers probes, and is waited for.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # as urllib3 does by itself
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in {
            "TCP_KEEPIDLE": 10,
            "TCP_KEEPINTVL": 3,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": 20_000,  # milliseconds that sent data may go without an answer
        }.items()
        if hasattr(socket, name)  # Linux has them all
    ),
)

GONE = "restore the index from a snapshot, or `pillowd checkpoint reset` to fill a new one"


class Json(Serializer):
    """Reads and writes JSON with msgspec."""

    mimetype = "application/json"

    def loads(self, data: bytes) -> Any:
        """The value of an answer; None of an empty one (413 has no body)."""
        try:
            return msgspec.json.decode(data) if data else None
        except msgspec.DecodeError as error:
            raise SerializationError(f"the answer is no JSON: {error}") from error

    def dumps(self, data: Any) -> bytes:
        """A value as JSON; bytes as they are."""
        return data if isinstance(data, bytes) else msgspec.json.encode(data)


class Ndjson(Json):
    """Passes bodies in the bulk format through; the client's own would copy them twice."""

    mimetype = "application/x-ndjson"


class Node(Urllib3HttpNode):
    """One node: whoever is there answers soon, and all connections end when the client is closed.

    A greenlet that is killed just when urllib3 has taken a connection out of its pool leaves it open
    and unknown to the pool.
    """

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._make = self.pool.ConnectionCls
        self._made: set[Any] = set()
        self.pool.conn_kw["socket_options"] = _KEEPALIVE
        self.pool.ConnectionCls = self._remember  # type: ignore[assignment]  # called, never inherited

    def perform_request(
        self, method: str, target: str, body: Any = None, headers: Any = None, request_timeout: Any = DEFAULT
    ) -> Any:
        """Sends a request; opening a connection for it has less time than the answer."""
        seconds = self.config.request_timeout if request_timeout is DEFAULT else request_timeout
        limits: Any = urllib3.Timeout(total=seconds, connect=min(CONNECT_SECONDS, seconds or CONNECT_SECONDS))
        return super().perform_request(method, target, body, headers, request_timeout=limits)

    def close(self) -> None:
        """Closes all connections."""
        super().close()
        for connection in self._made:
            connection.close()

    def _remember(self, *args: Any, **kwargs: Any) -> Any:
        connection = self._make(*args, **kwargs)
        self._made = {one for one in self._made if one.sock is not None} | {connection}
        return connection


def connect(options: ElasticsearchConnection) -> Elasticsearch:
    """A client; connects when it is first used.

    Raises:
        ConfigError: the certificates can't be read.
    """
    auth: dict[str, Any] = {}
    if options.auth and options.auth.api_key:
        auth["api_key"] = options.auth.api_key.get_secret_value()
    elif options.auth and options.auth.username and options.auth.password:
        auth["basic_auth"] = (options.auth.username, options.auth.password.get_secret_value())
    if options.ca_bundle:
        auth["ca_certs"] = _readable(options.ca_bundle)
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


def _readable(ca_bundle: Path) -> str:
    """The path of certificates that can be read; the client would only say so at every request."""
    try:
        ssl.create_default_context(cafile=ca_bundle)
    except OSError as error:  # a missing file, or ssl.SSLError for one that holds no certificate
        raise ConfigError(
            f"The certificates in {ca_bundle} can't be read: {error}.", remedy="see ca_bundle"
        ) from error
    return str(ca_bundle)


def check_versions(client: Elasticsearch) -> None:
    """Refuses a server of another major version than the client library's.

    The client asks for its own version's answers ("compatible-with=9"), which an older server does
    not know. `*/*` is answered by every version.

    Raises:
        ConfigError: the versions differ, or the server is no Elasticsearch.
        RetryableError, AccessError: see `translated`.
    """
    with translated():
        answer = client.perform_request("GET", "/", headers={"accept": "*/*"})
    number = str(answer.body["version"]["number"])
    if int(number.partition(".")[0]) != elasticsearch.__version__[0]:
        ours = ".".join(map(str, elasticsearch.__version__))
        raise ConfigError(
            f"The server is Elasticsearch {number}, the client library is {ours}: "
            "their major versions must be the same.",
            remedy=f"use a server of version {elasticsearch.__version__[0]}, "
            "or a pillowd made for this server's version",
        )


@contextmanager
def translated() -> Iterator[None]:
    """Raises the client's errors as ours; see `meaning`."""
    try:
        yield
    except (ApiError, TransportError) as error:
        raise meaning(error) from error


def meaning(error: ApiError | TransportError) -> PillowError:
    """What the caller must do about an error of the client."""
    if isinstance(error, ApiError):
        return _of_answer(error)
    cause = error.__cause__ or error
    if _is_untrusted(cause):
        return AccessError(
            f"The certificate of Elasticsearch is not trusted: {cause}.",
            remedy="give its certificate authority as ca_bundle",
        )
    if isinstance(error, SerializationError):
        return RetryableError(str(error.message))
    # The client's own words are "Connection error"; what happened is in its cause.
    opened = not any(isinstance(one, urllib3.exceptions.ConnectTimeoutError) for one in error.errors)
    if isinstance(error, ConnectionTimeout) and opened:
        return RetryableError(str(cause))  # it may be at work
    return AwayError(str(cause))


def _of_answer(error: ApiError) -> PillowError:
    if isinstance(error, UnsupportedProductError):
        return ConfigError("The server does not say that it is Elasticsearch.", remedy="see hosts")
    status, (type_, reason) = error.meta.status, cause_of(error.body)
    text = f"Elasticsearch answered {status}: {type_} {reason}".strip()
    if type_ in PASSING or status in {408, 429} or status >= 500:
        kind = AwayError if status in _NOT_SERVING else RetryableError
        return kind(text, retry_after_seconds=_retry_after(error.meta.headers))
    if status in {401, 403}:
        return AccessError(text, remedy="see auth, and the privileges of that user or key")
    if status == 404:
        return FatalError(text, remedy=GONE)
    return ConfigError(text)


def cause_of(body: object) -> tuple[str, str]:
    """Type and reason of an error, of a whole answer or of one item; empty where it says neither.

    The preview of a field's value, which some reasons end with, is cut off: it belongs to the
    document, and reasons are shown in logs.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return "", str(error or "")
    reason, _, _ = str(error.get("reason", "")).partition(" Preview of field's value")
    return str(error.get("type", "")), reason


def _retry_after(headers: Mapping[str, str]) -> float | None:
    with suppress(KeyError, ValueError):
        return float(headers["retry-after"])
    return None  # absent, or a date: our own back-off is good enough then


def _is_untrusted(cause: BaseException) -> bool:
    """Whether certificate verification failed, rather than a handshake that was cut off."""
    seen: BaseException | None = cause
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError) or re.search(
            r"CERTIFICATE_VERIFY_FAILED", str(seen)
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
