"""One CouchDB server over HTTP: requests in, typed answers or the error tree out.

Nothing is retried here, since only the caller knows what must not be read twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar
from urllib.parse import quote

import gevent
import msgspec
import requests
import urllib3

from pillows.clock import Clock, SystemClock
from pillows.couch.auth import Authenticator, create_authenticator
from pillows.couch.errors import ForbiddenError, RefusedError, classify
from pillows.couch.exception_chain import is_connect_failure, is_untrusted_certificate
from pillows.couch.http_session import session
from pillows.couch.login_throttle import LoginThrottle
from pillows.couch.options import CouchConnection
from pillows.couch.response import ActivityMonitor, StreamingResponse
from pillows.errors import AccessError, AwayError, ConfigError, PillowError, RetryableError
from pillows.redaction import Redactor

T = TypeVar("T")

#: A larger answer is put together in one turn of the hub and decoded in another.
_LARGE_BYTES = 4 * 2**20

#: How much of an unwanted answer is read for its message.
_COMPLAINT_BYTES = 4096


class CouchClient:
    """A client of one server, shared by every feed that reads from it.

    Proxies and `REQUESTS_CA_BUNDLE` come from the environment, as requests reads them.

    Args:
        connection: where the server is and who we are.
        clock: tells when tokens are old.
    """

    def __init__(self, connection: CouchConnection, *, clock: Clock | None = None) -> None:
        self.connection = connection
        self.clock = clock or SystemClock()
        self.login_throttle = LoginThrottle(self.clock)
        self._users = 0
        self._http = session(connection)
        self._access: Authenticator = create_authenticator(
            connection.auth, self._login, self.clock, self.login_throttle
        )

    def acquire(self) -> None:
        """Notes somebody who uses this client."""
        self._users += 1

    def release(self) -> None:
        """Notes that somebody does not use it any more; idle connections go with the last."""
        self._users -= 1
        if self._users <= 0:
            self.close()

    def path(self, *names: str) -> str:
        """A path of the server: each name percent-encoded, `/` and `+` included."""
        return "".join(f"/{quote(name, safe='')}" for name in names)

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        silent_seconds: float = 0.0,
        activity: ActivityMonitor | None = None,
    ) -> Iterator[StreamingResponse]:
        """Sends a request and gives its answer, to be read while the context is open.

        Args:
            method: GET, POST, PUT.
            path: encoded, with the query.
            body: JSON.
            silent_seconds: how long the server itself may say nothing.
            activity: is told of every byte.

        Raises:
            AwayError: no connection to the server came about.
            RetryableError: it is busy, or does not make sense; a subclass in `pillows.couch.errors` says
                what exactly.
            AccessError: it does not let us in.
            ConfigError: what was configured cannot work.
        """
        response = self._admitted(method, path, body, silent_seconds)
        try:
            yield StreamingResponse(response, self.translate_errors, activity or ActivityMonitor(self.clock))
        finally:
            response.close()

    def json(
        self,
        method: str,
        path: str,
        type_: type[T],
        *,
        body: Any = None,
        max_bytes: int = 64 * 2**20,
        silent_seconds: float = 0.0,
        activity: ActivityMonitor | None = None,
    ) -> T:
        """Sends a request and returns its whole answer, decoded.

        Raises:
            As `open`, and
            TooLargeError: the answer is larger than `max_bytes`.
        """
        sent = None if body is None else msgspec.json.encode(body)
        with self.open(method, path, body=sent, silent_seconds=silent_seconds, activity=activity) as answer:
            text = answer.body(max_bytes)
        if len(text) > _LARGE_BYTES:
            gevent.sleep(0)
        try:
            return msgspec.json.decode(text, type=type_)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise RetryableError(f"The server's answer makes no sense: {error}") from None

    def close(self) -> None:
        """Closes every idle connection. May be called twice; a later request opens another."""
        self._http.close()

    def _admitted(
        self, method: str, path: str, body: bytes | None, silent_seconds: float
    ) -> requests.Response:
        """The response to a request that the server took, after logging in anew at most once."""
        with self.login_throttle.trying() if self.connection.auth is not None else nullcontext():
            try:
                return self._accepted(method, path, body, self._headers(), silent_seconds)
            except RefusedError:
                if not self._access.invalidate():
                    self._refused()
                    raise
            # Logging in may be refused too; that is the end of it.
            headers = self._headers()
            try:
                return self._accepted(method, path, body, headers, silent_seconds)
            except RefusedError:
                self._refused()
                raise

    def _refused(self) -> None:
        """Counts a refusal; who sends no credentials has none to lose."""
        if self.connection.auth is not None:
            self.login_throttle.refused()

    def _headers(self) -> dict[str, str]:
        try:
            return self._access.headers()
        except RefusedError as error:
            # Already counted, and not to be taken for a refusal of the request itself.
            raise AccessError(error.args[0], remedy=error.remedy) from None

    def _accepted(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        silent_seconds: float,
    ) -> requests.Response:
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            response = self._send(method, path, body, headers, silent_seconds)
        except ForbiddenError:
            self.login_throttle.accepted()
            raise
        self.login_throttle.accepted()
        return response

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        silent_seconds: float,
    ) -> requests.Response:
        timeouts = self.connection.timeouts
        with self.translate_errors():
            response = self._http.request(
                method,
                self.connection.url + path,
                data=body,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=(timeouts.connect, timeouts.silence + silent_seconds),
                # With each request: the environment's would go before the session's.
                verify=str(self.connection.ca_bundle) if self.connection.ca_bundle else None,
            )
        if response.status_code // 100 == 2:
            return response
        try:
            raise self._refusal(response)
        finally:
            response.close()

    def _refusal(self, response: requests.Response) -> PillowError:
        try:
            body = next(
                StreamingResponse(response, self.translate_errors, ActivityMonitor(self.clock)).blocks(), b""
            )[:_COMPLAINT_BYTES]
        except RetryableError:
            body = b""
        return classify(response.status_code, response.headers, body, now=self.clock.wall())

    def _login(self, path: str, form: dict[str, str]) -> requests.Response:
        body = msgspec.json.encode(form)
        headers = {"Content-Type": "application/json"}
        response = self._send("POST", path, body, headers, silent_seconds=0.0)
        response.close()
        return response

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turns whatever requests, urllib3 or the socket raise into the error tree.

        The secrets are cut out of the texts, although none of these libraries puts them in.
        """
        try:
            yield
        except PillowError:
            raise
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise ConfigError(self._said(error), remedy="check the connection's url") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            self.login_throttle.doubt()
            if is_untrusted_certificate(error):
                raise AccessError(
                    f"The server's certificate is not trusted: {self._said(error)}",
                    remedy="set the connection's `ca_bundle`",
                ) from None
            kind = AwayError if is_connect_failure(error) else RetryableError
            raise kind(self._said(error)) from None

    def _said(self, error: BaseException) -> str:
        return Redactor(self._access.secrets()).redact(f"{type(error).__name__}: {error}")[:500]
