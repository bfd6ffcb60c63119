"""Settings of a CouchDB server: address, credentials and timeouts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pillows.options import Duration, Options, Secret
from pillows.redaction import STRAY_PASSWORD_REMEDY, find_stray_password

# CouchDB docs, "/{db}": its own databases are the only ones that begin with `_`.
_DATABASE = re.compile(r"[a-z][a-z0-9_$()+/-]*|_users|_replicator|_global_changes")


def is_database_name(name: str) -> bool:
    """Return whether CouchDB takes a name for a database."""
    return _DATABASE.fullmatch(name) is not None


def _database(name: str) -> str:
    if not is_database_name(name):
        raise ValueError(
            f"{name!r} is not a valid CouchDB database name; "
            "begin with a lower-case letter, continue with those, digits and _ $ ( ) + - /"
        )
    return name


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number
        return False


#: A CouchDB database name. An invalid one is rejected when the configuration is loaded: no such database can
#: ever be created, so a pillow would wait forever.
DatabaseName = Annotated[str, Field(min_length=1), AfterValidator(_database)]


# A name, with `*`, `?` and `[...]` as wildcards.
_GLOB = re.compile(r"[a-z0-9_$()+/*?\[\]!-]+")


def is_database_glob(pattern: str) -> bool:
    """Return whether a name with wildcards may match a database."""
    return _GLOB.fullmatch(pattern) is not None


def _glob(pattern: str) -> str:
    if not is_database_glob(pattern):
        raise ValueError(
            f"{pattern!r} matches no CouchDB database name; "
            "write lower-case letters, digits, _ $ ( ) + - / and the wildcards * ? [...]"
        )
    return pattern


def _to_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


#: Names of databases with wildcards: one, or a list.
DatabaseGlobs = Annotated[
    tuple[Annotated[str, Field(min_length=1), AfterValidator(_glob)], ...], BeforeValidator(_to_list)
]


class BasicAuth(Options):
    """Send user name and password with every request."""

    type: Literal["basic"] = "basic"
    username: str
    password: Secret


class SessionAuth(Options):
    """Log in for a cookie session, renewed before it expires."""

    type: Literal["session"]
    username: str
    password: Secret


class BearerAuth(Options):
    """Send a fixed bearer token."""

    type: Literal["bearer"]
    token: Secret


class JwtAuth(Options):
    """Send a JSON web token from a file that another program keeps current."""

    type: Literal["jwt"]
    token_file: Path


def _to_plain_http_url(url: str) -> str:
    """Return a base URL, without a `/` at its end.

    Raises:
        ValueError: it is not one, or has a password in it.
    """
    if stray := find_stray_password(url):
        raise ValueError(f"{stray}; {STRAY_PASSWORD_REMEDY}, such as `auth: {{ password: ${{NAME}} }}`")
    if not _is_http(url):
        raise ValueError("needs a URL such as https://couch.example:6984")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or password; move them to `auth`, where they are never shown")
    if parts.query or parts.fragment:
        raise ValueError("holds a query or fragment; remove it")
    return url.rstrip("/")


#: The base URL of a server.
HttpUrl = Annotated[str, AfterValidator(_to_plain_http_url)]


class IamAuth(Options):
    """Get tokens from IBM Cloud IAM, for Cloudant."""

    type: Literal["iam"]
    apikey: Secret
    url: HttpUrl | None = None


Auth = Annotated[
    BasicAuth | SessionAuth | BearerAuth | JwtAuth | IamAuth,
    Field(discriminator="type"),
]


class Timeouts(Options):
    """How long to wait for a server.

    Attributes:
        connect: for a TCP connection and its TLS handshake.
        silence: for the next byte, beyond the time for which the server may be silent.
        drain: after a stop, for the responses that are under way.
    """

    connect: Duration = Field(default=10.0, gt=0)
    silence: Duration = Field(default=15.0, gt=0)
    drain: Duration = Field(default=5.0, ge=0)


class CouchConnection(Options):
    """A CouchDB server (or Cloudant, or anything that speaks its protocol).

    Attributes:
        url: `https://couch.example:6984`, without user and password; a list for a cluster without a balancer.
        other_urls: the further nodes of that list: tried in turn, healthy ones first.
        auth: credentials; none for an open server.
        ca_bundle: certificates to trust instead of the system's.
        client_cert: our certificate with its key in one PEM file, or with the key in `client_key`.
        client_key: the key of `client_cert`.
        timeouts: see `Timeouts`.
        fetches: `_bulk_get` requests in flight for one feed.
    """

    type: Literal["couchdb"] = "couchdb"
    url: HttpUrl
    other_urls: tuple[HttpUrl, ...] = ()
    auth: Auth | None = None
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    timeouts: Timeouts = Timeouts()
    fetches: int = Field(default=4, ge=1, le=32)

    @property
    def urls(self) -> tuple[str, ...]:
        """All nodes."""
        return (self.url, *self.other_urls)

    @model_validator(mode="before")
    @classmethod
    def _split_list(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(urls := values.get("url"), list | tuple) and urls:
            return values | {"url": urls[0], "other_urls": tuple(urls[1:])}
        return values
