"""Decide who may make a request, by its host, origin, content type and token. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from daemon.config.listeners import TokenOptions
from daemon.errors import (
    InvalidRequestError,
    NotPermittedError,
    RequestError,
    ThrottledError,
    UnauthenticatedError,
)
from pillows.clock import Clock

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")

#: Shorter tokens can be guessed, so they are refused even if their hash is configured.
MIN_TOKEN_CHARACTERS = 32
#: Wrong tokens of one address within a minute; then it has to wait.
MAX_FAILURES = 10
FAILURE_SECONDS = 60.0
#: Addresses whose failures are remembered.
_MAX_ADDRESSES = 10_000
_SEND_TOKEN = f"send `Authorization: Bearer TOKEN`, of {MIN_TOKEN_CHARACTERS} characters or more"


class UnsupportedTypeError(RequestError):
    """The body is not JSON."""

    status = 415


def check_host(host: str, own_hosts: Collection[str]) -> None:
    """Refuse a `Host` header that names another server, to protect against DNS rebinding.

    Flask's `TRUSTED_HOSTS` cannot contain an IPv6 address.

    Args:
        host: the header; with or without a port.
        own_hosts: the names of this server, in lower case.

    Raises:
        InvalidRequestError: the header names another server.
    """
    found = _HOST.fullmatch(host)
    if found is None or found[1].lower() not in own_hosts:
        raise InvalidRequestError(
            "the `Host` header names another server", remedy="add the name to `daemon.http.hosts`"
        )


def check_origin(method: str, headers: Mapping[str, str], own_origins: Collection[str]) -> None:
    """Refuse requests that a page of another site made a browser send: forms, and fetches across origins.

    Args:
        method: of the request.
        headers: of the request.
        own_origins: how a page of this server names its origin.

    Raises:
        UnsupportedTypeError: a request that changes something is not JSON; no form can send JSON.
        NotPermittedError: the browser says that another site sent it.
    """
    if method in ("GET", "HEAD"):
        return
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedTypeError(
            "a request that changes something needs the content type JSON",
            remedy="send `Content-Type: application/json`",
        )
    site = headers.get("Sec-Fetch-Site", "none")
    origin = headers.get("Origin")
    if site not in ("same-origin", "none") or (origin is not None and origin not in own_origins):
        raise NotPermittedError("a page of another site may not command pillowd")


class TokenOwner(Struct, frozen=True, kw_only=True):
    """The owner of a token.

    Attributes:
        name: as configured.
        scopes: what the token allows.
    """

    name: str
    scopes: tuple[str, ...]


class Tokens:
    """Checks bearer tokens by their hashes, and blocks addresses that guess.

    Args:
        tokens: as configured.
        clock: for the throttle.
    """

    def __init__(self, tokens: Sequence[TokenOptions], clock: Clock) -> None:
        self._owners = [(each.digest, TokenOwner(name=each.name, scopes=each.scopes)) for each in tokens]
        self._clock = clock
        self._failures: dict[str, list[float]] = {}

    def recognize(self, authorization: str, address: str) -> TokenOwner:
        """Return the owner of the token in an `Authorization` header.

        The token is compared with every configured hash, each in constant time.

        Args:
            authorization: the header; empty if there is none.
            address: the client's address.

        Raises:
            ThrottledError: too many wrong tokens came from this address within a minute.
            UnauthenticatedError: there is no token, or it is wrong.
        """
        now = self._clock.monotonic()
        recent = [at for at in self._failures.get(address, ()) if at > now - FAILURE_SECONDS]
        if len(recent) >= MAX_FAILURES:
            raise ThrottledError(
                f"{MAX_FAILURES} wrong tokens came from {address} within a minute", remedy="wait a minute"
            )
        kind, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        found = [owner for known, owner in self._owners if hmac.compare_digest(known, digest)]
        if kind.lower() == "bearer" and found and len(token) >= MIN_TOKEN_CHARACTERS:
            return found[0]
        if not authorization:
            raise UnauthenticatedError("there is no token", remedy=_SEND_TOKEN)
        self._note_failure(address, [*recent, now])
        if kind.lower() != "bearer":
            raise UnauthenticatedError("the `Authorization` header has no `Bearer` token", remedy=_SEND_TOKEN)
        raise UnauthenticatedError(
            "the token is not one of `daemon.admin.tcp.tokens`",
            remedy="send the token itself; `sha256` in the configuration is the SHA-256 of it",
        )

    def _note_failure(self, address: str, times: list[float]) -> None:
        self._failures.pop(address, None)
        self._failures[address] = times
        while len(self._failures) > _MAX_ADDRESSES:
            del self._failures[next(iter(self._failures))]


def check_scope(scopes: Sequence[str], needed: str, name: str) -> None:
    """Check that a token allows an operation.

    Raises:
        NotPermittedError: the token does not have the scope.
    """
    if needed not in scopes:
        raise NotPermittedError(
            f"the token {name} does not have the scope `{needed}`",
            remedy="add it in `daemon.admin.tcp.tokens`",
        )
