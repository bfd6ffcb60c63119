"""Settings of a CouchDB server: where it is, who we are, and how long we wait."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from pillows.options import Duration, Options, Secret

# CouchDB docs, "/{db}": its own databases are the only ones that begin with `_`.
_DATABASE = re.compile(r"[a-z][a-z0-9_$()+/-]*|_users|_replicator|_global_changes")


def _database(name: str) -> str:
    if not _DATABASE.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a CouchDB database; "
            "begin with a lower-case letter, go on with those, digits and _ $ ( ) + - /"
        )
    return name


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        return False


#: The name of a database, as CouchDB takes it: it has none of another, so whoever waited would for ever.
DatabaseName = Annotated[str, Field(min_length=1), AfterValidator(_database)]


class BasicAuth(Options):
    """Name and password with every request."""

    type: Literal["basic"] = "basic"
    username: str
    password: Secret


class SessionAuth(Options):
    """A cookie session, renewed before it ends."""

    type: Literal["session"]
    username: str
    password: Secret


class BearerAuth(Options):
    """A fixed bearer token."""

    type: Literal["bearer"]
    token: Secret


class JwtAuth(Options):
    """A JSON web token in a file that somebody else keeps fresh; read again when it changes."""

    type: Literal["jwt"]
    token_file: Path


class IamAuth(Options):
    """IBM Cloud IAM, for Cloudant."""

    type: Literal["iam"]
    apikey: Secret
    url: str | None = None


Auth = Annotated[
    BasicAuth | SessionAuth | BearerAuth | JwtAuth | IamAuth,
    Field(discriminator="type"),
]


class Timeouts(Options):
    """How long to wait for a server that says nothing.

    Attributes:
        connect: for a TCP connection and its TLS handshake.
        silence: beyond the time that the server itself may stay silent, before the next byte.
        drain: for what was already asked for when a stop is asked for.
    """

    connect: Duration = Field(default=10.0, gt=0)
    silence: Duration = Field(default=15.0, gt=0)
    drain: Duration = Field(default=5.0, ge=0)


class CouchConnection(Options):
    """A CouchDB server (or Cloudant, or anything that speaks its protocol).

    Attributes:
        url: `https://couch.example:6984`, without user and password.
        auth: how we say who we are; none for an open server.
        ca_bundle: certificates to trust instead of the system's.
        client_cert: our certificate with its key in one PEM file, or `client_key` beside it.
        client_key: the key of `client_cert`.
        timeouts: see `Timeouts`.
        fetches: `_bulk_get` requests in flight for one feed.
    """

    type: Literal["couchdb"] = "couchdb"
    url: str
    auth: Auth | None = None
    ca_bundle: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    timeouts: Timeouts = Timeouts()
    fetches: int = Field(default=4, ge=1, le=32)

    @field_validator("url")
    @classmethod
    def _a_plain_http_url(cls, url: str) -> str:
        if not _is_http(url):
            raise ValueError("needs a URL such as https://couch.example:6984")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds a user or password; put them into `auth`, where they are never shown")
        if parts.query or parts.fragment:
            raise ValueError("holds a query or fragment; end the URL before it")
        return url.rstrip("/")
