"""Parse the URL of a database, such as `https://etl:secret@couch.example:6984/cases`."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pillows.errors import ConfigError
from pillows.redaction import STRAY_PASSWORD_REMEDY, find_stray_password, redact_address


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """The parts of a database's URL.

    Attributes:
        server: the URL of the server, without user and password.
        database: the name of the database.
        username: the user; None without one.
        password: the password; None without one.
    """

    server: str
    database: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_database_url(url: str) -> DatabaseUrl:
    """Parse the URL of a database.

    Raises:
        ConfigError: it does not name a database on an HTTP server.
    """
    if stray := find_stray_password(url):
        raise ConfigError(
            f"The URL of the database {stray}.", remedy=f"{STRAY_PASSWORD_REMEDY}: COUCHDB_PASSWORD"
        )
    try:
        url.encode()  # a command line can hold bytes that are no text
        parts = urlsplit(url)
        _ = parts.port  # is only parsed now
    except UnicodeEncodeError:
        raise ConfigError(f"{redact_address(url)} is not UTF-8.", remedy="correct the URL") from None
    except ValueError as error:
        raise ConfigError(f"{redact_address(url)}: {error}.", remedy="correct the URL") from None
    path, _, database = parts.path.rstrip("/").rpartition("/")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not database:
        raise ConfigError(
            f"{redact_address(url)} is not the URL of a database.",
            remedy="write it like https://couch.example:6984/cases",
        )
    host = parts.netloc.rpartition("@")[2]
    return DatabaseUrl(
        server=urlunsplit((parts.scheme, host, quote(path, safe="/%"), "", "")),
        database=unquote(database),
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )
