"""Who we are to a CouchDB server: what each request carries, and where it comes from."""

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

#: A token is renewed when this share of its life is over.
RENEW_AT = 0.8

#: A cookie that does not say how long it lives does so for CouchDB's default, `[chttpd_auth] timeout`.
COOKIE_SECONDS = 600.0


class Login(Protocol):
    """Sends the one request that an access method needs of its own."""

    def __call__(self, path: str, form: dict[str, str]) -> requests.Response:
        """POSTs JSON to a path of the server without credentials."""


class Authenticator(ABC):
    """Puts credentials on requests. Shared by everybody who uses them."""

    @abstractmethod
    def headers(self) -> dict[str, str]:
        """The headers that say who we are; may ask a server for them.

        Raises:
            AccessError: that server does not let us in; that is counted already.
            RetryableError: it is away.
        """

    def invalidate(self) -> bool:
        """Drops a token that was refused. Returns whether another try could be better."""
        return False

    def secrets(self) -> list[str]:
        """What must never appear in a message."""
        return []


class NoAuthenticator(Authenticator):
    """A server that asks nobody."""

    def headers(self) -> dict[str, str]:
        """Nothing."""
        return {}


class BasicAuthenticator(Authenticator):
    """Name and password with every request."""

    def __init__(self, options: BasicAuth) -> None:
        self._options = options

    def headers(self) -> dict[str, str]:
        """`Authorization: BasicAuthenticator`."""
        # In UTF-8, as CouchDB reads it; requests' own would take Latin-1.
        pair = f"{self._options.username}:{self._options.password.get_secret_value()}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    def secrets(self) -> list[str]:
        """The password, and the header's value that holds it."""
        return [self._options.password.get_secret_value(), self.headers()["Authorization"].split()[1]]


class BearerAuthenticator(Authenticator):
    """A fixed token."""

    def __init__(self, options: BearerAuth) -> None:
        self._token = options.token.get_secret_value()

    def headers(self) -> dict[str, str]:
        """`Authorization: BearerAuthenticator`."""
        return {"Authorization": f"Bearer {self._token}"}

    def secrets(self) -> list[str]:
        """The token."""
        return [self._token]


class JwtAuthenticator(Authenticator):
    """A token in a file that somebody else keeps fresh; read for every request, it is small."""

    def __init__(self, options: JwtAuth) -> None:
        self._path = options.token_file
        self._sent = ""

    def headers(self) -> dict[str, str]:
        """`Authorization: BearerAuthenticator`."""
        self._sent = self._read()
        return {"Authorization": f"Bearer {self._sent}"}

    def invalidate(self) -> bool:
        """Whether the file holds another token by now."""
        return self._read() != self._sent

    def secrets(self) -> list[str]:
        """The token that was sent last."""
        return [self._sent] if self._sent else []

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RetryableError(f"The token file {self._path} cannot be read: {error}") from error


class CookieAuthenticator(Authenticator):
    """A cookie session, renewed when 80 % of its life is over, by one greenlet for all."""

    def __init__(
        self, options: SessionAuth, login: Login, clock: Clock, login_throttle: LoginThrottle
    ) -> None:
        self._options = options
        self._login = login
        self._clock = clock
        self._tries = login_throttle
        self._lock = RLock()
        self._cookie = ""
        self._renew_at = 0.0

    def headers(self) -> dict[str, str]:
        """`Cookie: AuthSession=...`."""
        with self._lock:
            if not self._cookie or self._clock.monotonic() >= self._renew_at:
                self._renew()
            return {"Cookie": f"AuthSession={self._cookie}"}

    def invalidate(self) -> bool:
        """Drops the cookie: the next request logs in again."""
        self._cookie = ""
        return True

    def secrets(self) -> list[str]:
        """The password and the cookie."""
        secrets = [self._options.password.get_secret_value(), self._cookie]
        return [secret for secret in secrets if secret]

    def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        password = self._options.password.get_secret_value()
        with self._tries.logging_in():
            response = self._login("/_session", {"name": self._options.username, "password": password})
        cookies = SimpleCookie()
        try:
            cookies.load(response.headers.get("Set-Cookie", ""))
            morsel = cookies["AuthSession"]
            life_seconds = float(morsel["max-age"] or COOKIE_SECONDS)
        except (CookieError, KeyError, ValueError):
            raise RetryableError("The server took the password and gave no session cookie.") from None
        self._cookie = morsel.value
        self._renew_at = asked_at + RENEW_AT * life_seconds


class IamAuthenticator(Authenticator):
    """IBM Cloud IAM: ibm_cloud_sdk_core fetches the token and renews it at 80 % of its life."""

    def __init__(self, options: IamAuth, login_throttle: LoginThrottle) -> None:
        # Imported only where it is used: it would cost every other daemon some MiB.
        from ibm_cloud_sdk_core.authenticators import (  # type: ignore[import-untyped]  # noqa: PLC0415 - has no types
            IAMAuthenticator,
        )

        self._apikey = options.apikey.get_secret_value()
        self._authenticator = IAMAuthenticator(self._apikey, url=options.url)
        self._tries = login_throttle
        self._lock = RLock()

    def headers(self) -> dict[str, str]:
        """`Authorization: BearerAuthenticator`.

        Raises:
            AccessError: IAM does not take the API key.
            RetryableError: IAM is away.
        """
        request: dict[str, dict[str, str]] = {"headers": {}}
        with self._lock, self._tries.logging_in(), self._asking():
            self._authenticator.authenticate(request)
        return request["headers"]

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from ibm_cloud_sdk_core import (  # type: ignore[import-untyped]  # noqa: PLC0415 - as in __init__
            ApiException,
        )

        try:
            yield
        except ApiException as error:
            if error.status_code in (400, 401, 403):
                raise RefusedError("IAM does not take the API key.", remedy="check `auth.apikey`") from None
            raise RetryableError(f"IAM answered {error.status_code}.") from None
        except requests.RequestException as error:
            raise RetryableError(f"IAM is away: {type(error).__name__}.") from None
        except Exception as error:  # noqa: BLE001 - the SDK takes an answer to pieces without looking
            raise RetryableError(f"IAM's answer makes no sense: {type(error).__name__}.") from None
        finally:
            # Else the SDK would take a request that failed for one under way, and wait a minute for it.
            self._authenticator.token_manager.request_time = 0

    def invalidate(self) -> bool:
        """Drops the token: the next request asks for another."""
        with self._lock:
            self._authenticator.token_manager.expire_time = 0
        return True

    def secrets(self) -> list[str]:
        """The API key and the token."""
        token = self._authenticator.token_manager.access_token
        return [self._apikey, token] if token else [self._apikey]


def create_authenticator(
    auth: Auth | None, login: Login, clock: Clock, login_throttle: LoginThrottle
) -> Authenticator:
    """The access method that was configured.

    Args:
        auth: the configured method; None for an open server.
        login: sends the request that gets a session.
        clock: tells when a token is old.
        login_throttle: how often that may be refused.
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
            return CookieAuthenticator(auth, login, clock, login_throttle)
        case IamAuth():
            return IamAuthenticator(auth, login_throttle)
