"""Parse the arguments of `pillowd mirror`: the URL of a database, and a target in one line."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pillows import registry
from pillows.couch.database_url import DatabaseUrl, parse_database_url
from pillows.couch.options import is_database_glob, is_database_name
from pillows.databases.names import is_glob
from pillows.errors import ConfigError
from pillows.redaction import redact_address
from pillows.transports.common.mirroring import Endpoint, MirrorSupport

#: Variable with the source's password in a written configuration.
SOURCE_PASSWORD = "COUCHDB_PASSWORD"  # noqa: S105  the variable's name

#: Longest name; PostgreSQL truncates longer ones.
_NAME_CHARACTERS = 63


def parse_source(url: str) -> tuple[Endpoint, str]:
    """Parse the URL of a database, such as `https://etl:secret@couch.example:6984/cases`.

    Of several databases it is like `https://couch.example:6984/user-*`.

    Returns:
        The server, and the database's name, or the pattern of several.

    Raises:
        ConfigError: it is not the URL of a database.
    """
    parsed = parse_database_url(url)
    _refuse_unescaped(parsed)
    connection: dict[str, Any] = {"type": "couchdb", "url": parsed.server}
    secrets = {}
    if parsed.username is not None:
        password = f"${{{SOURCE_PASSWORD}}}"
        connection["auth"] = {"type": "basic", "username": parsed.username, "password": password}
        secrets = {} if parsed.password is None else {SOURCE_PASSWORD: parsed.password}
    return Endpoint(connection=connection, secrets=secrets), parsed.database


def describe_unescaped(server: str, database: str) -> str:
    """Return how to write the URL if a part of the server's path belongs to the name of the database.

    Args:
        server: URL of the server.
        database: the last part of the path that was given.

    Returns:
        The hint; empty if the server's URL has no path.
    """
    parts = urlsplit(server)
    if not parts.path.strip("/"):
        return ""
    name = unquote(f"{parts.path.strip('/')}/{database}")
    url = urlunsplit((parts.scheme, parts.netloc, quote(name, safe=""), "", ""))
    return f"a `/` in the name of a database is written %2F: for the database {name}, {url}"


def _refuse_unescaped(parsed: DatabaseUrl) -> None:
    """Refuse what can't be the name of a database, such as the `+x` of `db/+x`, nor names with wildcards."""
    if is_glob(parsed.database) and is_database_glob(parsed.database):
        return
    if not is_database_name(parsed.database):
        raise ConfigError(
            f"{parsed.database!r} is not a valid name of a database.",
            remedy=describe_unescaped(parsed.server, parsed.database)
            or "begin with a lower-case letter, continue with those, digits and _ $ ( ) + - /",
        )


def parse_target(text: str) -> Endpoint:
    """Parse a target in one line.

    Raises:
        ConfigError: it has none of the forms that transports declare.
    """
    support = _find_support(text.partition(":")[0])
    if support is None:
        raise ConfigError(f"{redact_address(text)} is not a target.", remedy=f"write {_list_forms()}")
    return support.parse(text)


def to_plain_name(database: str) -> str:
    """Return a name for table, index and file that needs no quotes anywhere."""
    name = re.sub(r"[^a-z0-9]+", "_", database.lower()).strip("_")[:_NAME_CHARACTERS]
    return name or "documents"


def _find_support(scheme: str) -> MirrorSupport | None:
    """Return how to mirror into targets of a scheme; None if no transport knows it.

    A type that the scheme begins with comes first: loading all of their libraries takes a second.
    """
    for type in sorted(registry.transport_types(), key=lambda type: not scheme.startswith(type)):
        support = registry.transport(type).mirror
        if support is not None and scheme in support.SCHEMES:
            return support
    return None


def _list_forms() -> str:
    found = (registry.transport(type).mirror for type in registry.transport_types())
    *forms, last = [support.FORM for support in found if support is not None]
    return f"{', '.join(forms)} or {last}"
