"""Send requests to one CouchDB server; return typed responses or raise errors of `pillows.errors`.

Nothing is retried here: only the caller knows what must not be read twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import gevent
import msgspec
import requests
import urllib3
from msgspec import Struct

from pillows.clock import Clock, SystemClock
from pillows.couch.auth import Authenticator, create_authenticator
from pillows.couch.errors import (
    ForbiddenError,
    RefusedError,
    RejectedError,
    ServerError,
    classify,
    outcome_of,
)
from pillows.couch.exception_chain import is_connect_failure, is_untrusted_certificate
from pillows.couch.explain import explain_failure, explain_page
from pillows.couch.http.response import ActivityMonitor, StreamingResponse, UnreadableError
from pillows.couch.http.session import count_open, create_session
from pillows.couch.http.trust import find_trusted_certificates
from pillows.couch.login_throttle import LoginThrottle
from pillows.couch.nodes import Nodes
from pillows.couch.options import CouchConnection
from pillows.errors import AccessError, AwayError, ConfigError, PillowError, RetryableError
from pillows.redaction import Redactor, redact_address
from pillows.strict_json import run_deeply

if TYPE_CHECKING:
    from ibmcloudant.cloudant_v1 import CloudantV1

T = TypeVar("T")

#: A larger body is assembled in one turn of the hub and decoded in another.
_LARGE_BYTES = 4 * 2**20

#: Bytes of an error response that are read for its message.
_ERROR_BYTES = 4096

#: Largest body that `json` accepts by default; it may contain documents.
_MAX_JSON_BYTES = 64 * 2**20

#: Bounds of answers without documents: 10 ms and 100 ms to decode, whatever they hold.
SMALL_ANSWER_BYTES = 2**20
LIST_ANSWER_BYTES = 8 * 2**20


class _Request(Struct, frozen=True, kw_only=True):
    method: str
    path: str
    body: bytes | None = None
    silent_seconds: float = 0.0


#: Asks a node whether it serves; needs no credentials.
_UP = _Request(method="GET", path="/_up")

#: Statuses of a node in maintenance, and of a proxy whose node is down.
_MAINTENANCE = {404, 502, 503, 504}


class CouchClient:
    """A client of one server, shared by all feeds that read from it.

    Proxies come from the environment, as requests reads them.

    Args:
        connection: address, credentials and timeouts.
        clock: for the age of tokens.

    Attributes:
        outcomes: what became of its requests (`pillows.couch.errors.outcome_of`, or `ok`) -> how many.
    """

    def __init__(self, connection: CouchConnection, *, clock: Clock | None = None) -> None:
        self.connection = connection
        self.clock = clock or SystemClock()
        self._throttle = LoginThrottle(self.clock)
        self._users = 0
        self.outcomes: Counter[str] = Counter()
        self._http = create_session(connection)
        self._nodes = Nodes(connection.urls, self.clock)
        self._trusted = find_trusted_certificates(connection.ca_bundle)
        self._authenticator: Authenticator = create_authenticator(
            connection.auth, self._log_in, self.clock, self._throttle
        )

    @cached_property
    def cloudant(self) -> CloudantV1:
        """Ibmcloudant's client of the server, which sends its requests through this one."""
        from pillows.couch.cloudant import create_cloudant  # noqa: PLC0415 - most commands need none

        return create_cloudant(self.connection.url, self.send)

    def acquire(self) -> None:
        """Count a user of this client."""
        self._users += 1

    def release(self) -> None:
        """Count one user less; the last one closes idle connections."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    @property
    def open_connections(self) -> int:
        """How many connections are open, idle ones included."""
        return count_open(self._http)

    @property
    def is_used(self) -> bool:
        """Whether it has users."""
        return self._users > 0

    def path(self, *names: str) -> str:
        """Return a path of the server: each name percent-encoded, `/` and `+` included."""
        return "".join(f"/{quote(name, safe='')}" for name in names)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        silent_seconds: float = 0.0,
        expects_json: bool = True,
        activity: ActivityMonitor | None = None,
    ) -> Iterator[StreamingResponse]:
        """Send a request and yield its response, to be read while the context is open.

        Args:
            method: GET, POST, PUT.
            path: encoded, with the query.
            body: JSON.
            silent_seconds: longest silence of the server itself before its next byte.
            expects_json: whether an HTML page is an error.
            activity: records every block that arrives.

        Raises:
            AwayError: no connection to the server was made.
            RetryableError: the server is busy or its response is not valid; `pillows.couch.errors` has the
                subclasses.
            AccessError: the server denies access.
            ConfigError: the configuration cannot work.
        """
        response = self.send(method, path, body=body, silent_seconds=silent_seconds)
        try:
            if expects_json:
                _reject_page(response)
            yield self._stream(response, activity)
        finally:
            response.close()

    def json(
        self,
        method: str,
        path: str,
        type_: type[T],
        *,
        body: Any = None,
        max_bytes: int = _MAX_JSON_BYTES,
        silent_seconds: float = 0.0,
        activity: ActivityMonitor | None = None,
    ) -> T:
        """Send a request and return its whole response, decoded.

        Raises:
            PillowError: as `open`.
            TooLargeError: the response is larger than `max_bytes`.
        """
        encoded = None if body is None else msgspec.json.encode(body)
        response = self.send(method, path, body=encoded, silent_seconds=silent_seconds)
        return self.read_json(response, type_, max_bytes=max_bytes, activity=activity)

    def send(
        self, method: str, path: str, *, body: bytes | None = None, silent_seconds: float = 0.0
    ) -> requests.Response:
        """Send a request and return its unread response, which the caller closes.

        Raises:
            PillowError: as `open`.
        """
        request = _Request(method=method, path=path, body=body, silent_seconds=silent_seconds)
        with self._throttle.attempt() if self.connection.auth is not None else nullcontext():
            try:
                return self._send_with_credentials(request)
            except RefusedError:
                if not self._authenticator.invalidate():
                    self._record_refusal()
                    raise
            # Once more with new credentials; they may be refused, too.
            try:
                return self._send_with_credentials(request)
            except RefusedError:
                self._record_refusal()
                raise

    def read_json(
        self,
        response: requests.Response,
        type_: type[T],
        *,
        max_bytes: int = _MAX_JSON_BYTES,
        activity: ActivityMonitor | None = None,
    ) -> T:
        """Return a response's body, decoded, and close the response.

        Raises:
            TooLargeError: the body is larger than `max_bytes`.
            RetryableError: the connection broke, or the body is not valid.
        """
        with closing(response):
            _reject_page(response)
            text = self._stream(response, activity).read(max_bytes)
        if len(text) > _LARGE_BYTES:
            gevent.sleep(0)
        try:
            return run_deeply(lambda: msgspec.json.decode(text, type=type_))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            message = f"The server's answer makes no sense: {error}"
            # A proxy's error page says nothing about the documents.
            kind = (
                UnreadableError
                if text[:10] == b'{"results"' and text.rstrip()[-1:] == b"}"
                else RetryableError
            )
            raise kind(message) from None

    def close(self) -> None:
        """Close all idle connections. May be called twice; a later request opens another."""
        self._http.close()

    def _stream(self, response: requests.Response, activity: ActivityMonitor | None) -> StreamingResponse:
        return StreamingResponse(response, self.translate_errors, activity or ActivityMonitor(self.clock))

    def _record_refusal(self) -> None:
        if self.connection.auth is not None:
            self._throttle.record_refusal()

    def _send_with_credentials(self, request: _Request) -> requests.Response:
        headers = self._get_credentials()
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._send(request, headers)
        except ForbiddenError:
            self._throttle.record_success()
            raise
        self._throttle.record_success()
        return response

    def _get_credentials(self) -> dict[str, str]:
        try:
            return self._authenticator.get_headers()
        except RefusedError as error:
            # Counted already; it must not be taken for a refusal of the request itself.
            raise AccessError(error.args[0], remedy=error.remedy) from None

    def _send(self, request: _Request, headers: dict[str, str]) -> requests.Response:
        """Send a request to the first node that accepts it; never repeat one that may have been applied."""
        failure: PillowError | None = None
        for url in self._nodes.order():
            try:
                if self._nodes.needs_check(url):
                    self._send_to(url, _UP, {}).close()
            except AwayError as error:
                self._nodes.avoid(url)
                failure = error
                continue
            except PillowError as error:
                if isinstance(error, RejectedError | ServerError) and error.status in _MAINTENANCE:
                    self._nodes.avoid(url)
                    failure = error
                    continue
            try:
                return self._send_to(url, request, headers)
            except AwayError as error:
                self._nodes.avoid(url)
                failure = error
            except ServerError:
                self._nodes.avoid(url)
                raise
        raise failure or RetryableError("No node takes requests.")

    def _send_to(self, url: str, request: _Request, headers: dict[str, str]) -> requests.Response:
        try:
            response = self._exchange(url, request, headers)
        except PillowError as error:
            self.outcomes[outcome_of(error)] += 1
            raise
        self.outcomes["ok"] += 1
        return response

    def _exchange(self, url: str, request: _Request, headers: dict[str, str]) -> requests.Response:
        timeouts = self.connection.timeouts
        with self.translate_errors(url):
            response = self._http.request(
                request.method,
                url + request.path,
                data=request.body,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(timeouts.connect, timeouts.silence + request.silent_seconds),
                # With each request: requests prefers the environment's to the session's.
                verify=self._trusted,
            )
        if response.status_code // 100 == 2:
            return response
        with closing(response):
            raise self._to_error(response)

    def _to_error(self, response: requests.Response) -> PillowError:
        try:
            body = next(self._stream(response, None).blocks(), b"")[:_ERROR_BYTES]
        except RetryableError:
            body = b""
        url = redact_address(response.url)
        return classify(response.status_code, response.headers, body, now=self.clock.wall(), url=url)

    def _log_in(self, path: str, form: dict[str, str]) -> requests.Response:
        request = _Request(method="POST", path=path, body=msgspec.json.encode(form))
        response = self._send(request, {"Content-Type": "application/json"})
        response.close()
        return response

    @contextmanager
    def translate_errors(self, url: str = "") -> Iterator[None]:
        """Turn errors of requests, urllib3 and the socket into errors of `pillows.errors`.

        Secrets are removed from the messages, although none of these libraries adds them.

        Args:
            url: the node, if it is not the first.
        """
        try:
            yield
        except PillowError:
            raise
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise ConfigError(self._describe(error, url), remedy="check the connection's url") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self._throttle.record_broken_connection()
            if is_untrusted_certificate(error):
                raise AccessError(
                    f"The server's certificate is not trusted: {self._describe(error, url)}",
                    remedy="set the connection's `ca_bundle`",
                ) from None
            kind = AwayError if is_connect_failure(error) else RetryableError
            raise kind(self._describe(error, url)) from None

    def _describe(self, error: BaseException, url: str) -> str:
        redactor = Redactor(self._authenticator.get_secrets(), is_foreign=True)
        text = explain_failure(error, url or self.connection.url) or f"{type(error).__name__}: {error}"
        return redactor.redact(text)[:500]


def _reject_page(response: requests.Response) -> None:
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise RetryableError(explain_page(redact_address(response.url)))
