"""What `pillowd mirror` is given: the URL of a database, and a target in one line."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pillows.errors import ConfigError
from pillows.redaction import redact_address

#: The variables that hold the passwords of source and target in a written configuration.
SOURCE_PASSWORD = "COUCHDB_PASSWORD"  # noqa: S105  the variable's name
TARGET_PASSWORD = "TARGET_PASSWORD"  # noqa: S105  the variable's name

#: Where Elasticsearch listens unless told otherwise.
_ELASTICSEARCH_PORT = 9200
#: PostgreSQL cuts longer names off.
_NAME_CHARACTERS = 63

#: Connections that have tables with columns.
SQL_TYPES = frozenset({"sqlite", "postgres"})

_FORMS = "sqlite:///FILE, postgresql://HOST/DATABASE, elasticsearch+https://HOST:PORT or jsonl:FOLDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A source or a target.

    Attributes:
        connection: settings of the connection, with `${VARIABLE}` for a password.
        secrets: variable -> the password that was given in the URL.
        folder: must be there before anything is written; None where there is none.
    """

    connection: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def type(self) -> str:
        """The connection's type."""
        return str(self.connection["type"])

    @property
    def is_sql(self) -> bool:
        """Whether it has tables with columns."""
        return self.type in SQL_TYPES


def read_source(url: str) -> tuple[Place, str]:
    """A database's URL, such as `https://etl:secret@couch.example:6984/cases`.

    Returns:
        The server, and the database's name.

    Raises:
        ConfigError: it is none.
    """
    parts = _split(url)
    way, _, database = parts.path.rstrip("/").rpartition("/")
    if parts.scheme not in {"http", "https"} or not parts.hostname or not database:
        raise ConfigError(
            f"{redact_address(url)} is no database's URL.",
            remedy="write it like https://couch.example:6984/cases",
        )
    server = urlunsplit((parts.scheme, _host(parts), way, "", ""))
    connection: dict[str, Any] = {"type": "couchdb", "url": server}
    auth, secrets = _login(parts, SOURCE_PASSWORD)
    if auth:
        connection["auth"] = {"type": "basic", **auth}
    return Place(connection=connection, secrets=secrets), unquote(database)


def read_target(text: str) -> Place:
    """A target in one line.

    Raises:
        ConfigError: it is in none of the forms.
    """
    scheme = text.partition(":")[0]
    read = _TARGETS.get(scheme)
    if read is None:
        raise ConfigError(f"{redact_address(text)} is no target.", remedy=f"write {_FORMS}")
    return read(text)


def plain_name(database: str) -> str:
    """A name for table, index and file that needs no quotes anywhere."""
    name = re.sub(r"[^a-z0-9]+", "_", database.lower()).strip("_")[:_NAME_CHARACTERS]
    return name or "documents"


def _sqlite(text: str) -> Place:
    path = unquote(text.removeprefix("sqlite:///"))
    if not text.startswith("sqlite:///") or not path:
        raise ConfigError(
            f"{text} names no file.", remedy="write sqlite:///FILE, or sqlite:////PATH for one from the root"
        )
    file = Path(path).absolute()
    return Place(connection={"type": "sqlite", "path": str(file)}, folder=file.parent)


def _jsonl(text: str) -> Place:
    path = text.removeprefix("jsonl:")
    if not path:
        raise ConfigError(f"{text} names no folder.", remedy="write jsonl:FOLDER")
    folder = Path(path).absolute()
    return Place(connection={"type": "jsonl", "folder": str(folder)}, folder=folder)


def _postgres(text: str) -> Place:
    # Loaded only for this target; libpq's own parser knows every form of its URLs.
    from psycopg import ProgrammingError, conninfo  # noqa: PLC0415

    try:
        parts = conninfo.conninfo_to_dict(text)
    except ProgrammingError as error:
        raise ConfigError(
            f"{redact_address(text)}: {str(error).strip()}.", remedy="write postgresql://HOST/DATABASE"
        ) from None
    password = parts.pop("password", None)
    connection = {"type": "postgres", "dsn": conninfo.make_conninfo("", **parts)}
    if password is None:
        return Place(connection=connection)
    connection["password"] = f"${{{TARGET_PASSWORD}}}"
    return Place(connection=connection, secrets={TARGET_PASSWORD: str(password)})


def _elasticsearch(text: str) -> Place:
    parts = _split(text.removeprefix("elasticsearch+"))
    if not parts.hostname or parts.path.strip("/"):
        raise ConfigError(
            f"{redact_address(text)} names no server.",
            remedy="write elasticsearch+https://HOST:PORT; the index is named by --name",
        )
    host = _host(parts) if parts.port else f"{_host(parts)}:{_ELASTICSEARCH_PORT}"
    connection: dict[str, Any] = {"type": "elasticsearch", "hosts": [f"{parts.scheme}://{host}"]}
    auth, secrets = _login(parts, TARGET_PASSWORD)
    if auth:
        connection["auth"] = auth
    return Place(connection=connection, secrets=secrets)


_TARGETS: Mapping[str, Callable[[str], Place]] = {
    "sqlite": _sqlite,
    "jsonl": _jsonl,
    "postgresql": _postgres,
    "postgres": _postgres,
    "elasticsearch+http": _elasticsearch,
    "elasticsearch+https": _elasticsearch,
}


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # is only looked at now
    except ValueError as error:
        raise ConfigError(f"{redact_address(url)}: {error}.", remedy="correct the URL") from None
    return parts


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _login(parts: SplitResult, variable: str) -> tuple[dict[str, str], dict[str, str]]:
    """User and password: settings that name a variable for the password, and what it holds."""
    if parts.username is None:
        return {}, {}
    auth = {"username": unquote(parts.username), "password": f"${{{variable}}}"}
    return auth, {} if parts.password is None else {variable: unquote(parts.password)}
