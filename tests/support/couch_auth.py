"""The login to a test's CouchDB, as pillowd's settings have it."""

from __future__ import annotations

from pillows.couch.options import BasicAuth


def to_auth(login: tuple[str, str] | None) -> BasicAuth | None:
    """Return the settings for a user and a password; None for a server that wants none."""
    return BasicAuth(username=login[0], password=login[1]) if login else None
