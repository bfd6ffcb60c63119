"""A CouchDB server given by its URL, which may hold user and password; neither is ever shown.

Participants get the URL without them on their command lines, and the credentials in their environment.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

USER, PASSWORD = "PILLOWD_BENCH_COUCHDB_USER", "PILLOWD_BENCH_COUCHDB_PASSWORD"

#: In a configuration of pillowd: filled in from the environment.
AUTH = f'{{ type: basic, username: "${{{USER}}}", password: "${{{PASSWORD}}}" }}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A server, or a database of it.

    Attributes:
        url: without credentials and without a slash at its end.
        auth: user and password, if it wants some.
    """

    url: str
    auth: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers with the credentials."""
        if self.auth is None:
            return {}
        return {"Authorization": f"Basic {b64encode(':'.join(self.auth).encode()).decode()}"}

    @property
    def environ(self) -> dict[str, str]:
        """The credentials, for a participant."""
        return dict(zip((USER, PASSWORD), self.auth, strict=True)) if self.auth else {}

    @property
    def curl(self) -> str:
        """The credentials in the form of a configuration file of curl."""
        return f"user = {json.dumps(':'.join(self.auth), ensure_ascii=False)}\n" if self.auth else ""

    @property
    def settings(self) -> str:
        """The settings of a connection in pillowd's configuration."""
        auth = f", auth: {AUTH}" if self.auth else ""
        return f'type: couchdb, url: "{self.url}"{auth}'


def source(url: str, environ: Mapping[str, str] = os.environ) -> Source:
    """Returns the source that a URL names; credentials that the URL lacks are taken from the environment."""
    parts = urlsplit(url.rstrip("/"))
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if parts.username:
        return Source(url=bare, auth=(unquote(parts.username), unquote(parts.password or "")))
    user = environ.get(USER)
    return Source(url=bare, auth=(user, environ.get(PASSWORD, "")) if user else None)
