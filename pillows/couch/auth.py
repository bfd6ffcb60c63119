"""Authenticate to a CouchDB server: the headers that each request carries, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

import requests
from gevent.lock import RLock

from pillows.clock import Clock
from pillows.couch.errors import RefusedError
from pillows.couch.login_throttle import LoginThrottle
from pillows.couch.options import (
    Auth,
    BasicAuth,
    BearerAuth,
    IamAuth,
    JwtAuth,
    SessionAuth,
)
from pillows.errors import RetryableError

#: A token is renewed after this share of its lifetime.
RENEW_AT = 0.8

#: Assumed lifetime of a session cookie without Max-Age: CouchDB's default `[chttpd_auth] timeout`.
COOKIE_SECONDS = 600.0


class SendLogin(Protocol):
    """Sends the one request that an authenticator needs itself."""

    def __call__(self, path: str, form: dict[str, str]) -> requests.Response:
        """POST JSON to a path of the server without credentials."""


class Authenticator(ABC):
    """Adds credentials to requests. Shared by all users of a connection."""

    @abstractmethod
    def get_headers(self) -> dict[str, str]:
        """Return the headers with the credentials; may request them from a server.

        Raises:
            AccessError: that server denies access; the refusal is counted already.
            RetryableError: that server is away.
        """

    def invalidate(self) -> bool:
        """Drop a token that was refused. Return whether another request may succeed."""
        return False

    def get_secrets(self) -> list[str]:
        """Return the texts that must never appear in a message."""
        return []


class NoAuthenticator(Authenticator):
    """For a server without authentication."""

    def get_headers(self) -> dict[str, str]:
        """Return no header."""
        return {}


class BasicAuthenticator(Authenticator):
    """Sends user name and password with every request."""

    def __init__(self, options: BasicAuth) -> None:
        self._options = options

    def get_headers(self) -> dict[str, str]:
        """Return `Authorization: Basic`."""
        # In UTF-8, as CouchDB reads it; requests would send Latin-1, and the SDK's authenticator rejects
        # passwords that begin or end with a brace or quote.
        pair = f"{self._options.username}:{self._options.password.get_secret_value()}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    def get_secrets(self) -> list[str]:
        """Return the password, and the header's value that holds it."""
        return [self._options.password.get_secret_value(), self.get_headers()["Authorization"].split()[1]]


class BearerAuthenticator(Authenticator):
    """Sends a fixed token."""

    def __init__(self, options: BearerAuth) -> None:
        self._token = options.token.get_secret_value()

    def get_headers(self) -> dict[str, str]:
        """Return `Authorization: Bearer`."""
        return {"Authorization": f"Bearer {self._token}"}

    def get_secrets(self) -> list[str]:
        """Return the token."""
        return [self._token]


class JwtAuthenticator(Authenticator):
    """Sends a token from a file that another program keeps current; the small file is read each time."""

    def __init__(self, options: JwtAuth) -> None:
        self._path = options.token_file
        self._sent = ""

    def get_headers(self) -> dict[str, str]:
        """Return `Authorization: Bearer`."""
        self._sent = self._read()
        return {"Authorization": f"Bearer {self._sent}"}

    def invalidate(self) -> bool:
        """Return whether the file holds another token by now."""
        return self._read() != self._sent

    def get_secrets(self) -> list[str]:
        """Return the token that was sent last."""
        return [self._sent] if self._sent else []

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RetryableError(f"The token file {self._path} cannot be read: {error}") from error


class CookieAuthenticator(Authenticator):
    """Sends a session cookie, renewed after 80 % of its lifetime by one greenlet for all users.

    Not ibmcloudant's `CouchDbSessionAuthenticator`: that assumes 24 hours for a cookie without Max-Age, where
    CouchDB's default is 600 s, and its login cannot be throttled.
    """

    def __init__(
        self, options: SessionAuth, send_login: SendLogin, clock: Clock, throttle: LoginThrottle
    ) -> None:
        self._options = options
        self._send_login = send_login
        self._clock = clock
        self._throttle = throttle
        self._lock = RLock()
        self._cookie = ""
        self._renew_at = 0.0

    def get_headers(self) -> dict[str, str]:
        """Return `Cookie: AuthSession=...`."""
        with self._lock:
            if not self._cookie or self._clock.monotonic() >= self._renew_at:
                self._renew()
            return {"Cookie": f"AuthSession={self._cookie}"}

    def invalidate(self) -> bool:
        """Drop the cookie: the next request logs in again."""
        self._cookie = ""
        return True

    def get_secrets(self) -> list[str]:
        """Return the password and the cookie."""
        secrets = [self._options.password.get_secret_value(), self._cookie]
        return [secret for secret in secrets if secret]

    def _renew(self) -> None:
        requested_at = self._clock.monotonic()
        password = self._options.password.get_secret_value()
        with self._throttle.log_in():
            response = self._send_login("/_session", {"name": self._options.username, "password": password})
        cookies = SimpleCookie()
        try:
            cookies.load(response.headers.get("Set-Cookie", ""))
            morsel = cookies["AuthSession"]
            lifetime_seconds = float(morsel["max-age"] or COOKIE_SECONDS)
        except (CookieError, KeyError, ValueError):
            raise RetryableError("The server accepted the password but sent no session cookie.") from None
        self._cookie = morsel.value
        self._renew_at = requested_at + RENEW_AT * lifetime_seconds


class IamAuthenticator(Authenticator):
    """Sends a token of IBM Cloud IAM, which the SDK requests and renews after 80 % of its lifetime."""

    def __init__(self, options: IamAuth, throttle: LoginThrottle) -> None:
        from ibm_cloud_sdk_core.authenticators import IAMAuthenticator  # noqa: PLC0415 - for IBM Cloud alone

        self._apikey = options.apikey.get_secret_value()
        self._sdk = IAMAuthenticator(self._apikey, url=options.url)
        self._throttle = throttle
        self._lock = RLock()

    def get_headers(self) -> dict[str, str]:
        """Return `Authorization: Bearer`.

        Raises:
            AccessError: IAM rejects the API key.
            RetryableError: IAM is away.
        """
        request: dict[str, dict[str, str]] = {"headers": {}}
        with self._lock, self._throttle.log_in(), self._translate_errors():
            self._sdk.authenticate(request)
        return request["headers"]

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        from ibm_cloud_sdk_core import ApiException  # noqa: PLC0415 - for IBM Cloud alone

        try:
            yield
        except ApiException as error:
            if error.status_code in (400, 401, 403):
                raise RefusedError("IAM rejects the API key.", remedy="check `auth.apikey`") from None
            raise RetryableError(f"IBM Cloud IAM answered with HTTP status {error.status_code}.") from None
        except requests.RequestException as error:
            raise RetryableError(f"IAM is away: {type(error).__name__}.") from None
        except Exception as error:  # noqa: BLE001 - the SDK does not check the answer that it takes apart
            raise RetryableError(f"IBM Cloud IAM's answer is not valid: {type(error).__name__}.") from None
        finally:
            # Otherwise the SDK takes a failed request for one under way, and waits a minute for it.
            self._sdk.token_manager.request_time = 0

    def invalidate(self) -> bool:
        """Drop the token: the next request gets another one."""
        with self._lock:
            self._sdk.token_manager.expire_time = 0
        return True

    def get_secrets(self) -> list[str]:
        """Return the API key and the token."""
        token = self._sdk.token_manager.access_token
        return [self._apikey, token] if token else [self._apikey]


def create_authenticator(
    auth: Auth | None, send_login: SendLogin, clock: Clock, throttle: LoginThrottle
) -> Authenticator:
    """Return the configured authenticator.

    Args:
        auth: the configured method; None for a server without authentication.
        send_login: sends the request that gets a session.
        clock: for the age of tokens.
        throttle: limits the logins.
    """
    match auth:
        case None:
            return NoAuthenticator()
        case BasicAuth():
            return BasicAuthenticator(auth)
        case BearerAuth():
            return BearerAuthenticator(auth)
        case JwtAuth():
            return JwtAuthenticator(auth)
        case SessionAuth():
            return CookieAuthenticator(auth, send_login, clock, throttle)
        case IamAuth():
            return IamAuthenticator(auth, throttle)
