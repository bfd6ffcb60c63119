"""A transport's support for `pillowd mirror`: targets in one line, columns, tables.

A transport that a mirror can write to has a `MirrorSupport` as its class attribute `mirror`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct, field

from pillows.errors import ConfigError
from pillows.redaction import STRAY_PASSWORD_REMEDY, find_stray_password, redact_address

#: The variable that holds the target's password in a written configuration.
TARGET_PASSWORD = "TARGET_PASSWORD"  # noqa: S105  the variable's name


class Endpoint(Struct, frozen=True, kw_only=True):
    """A source or a target that was given in one line.

    Attributes:
        connection: settings of the connection, with `${VARIABLE}` for a password.
        secrets: variable -> the password that was given in the URL.
        folder: is created before anything is written; None if there is none.
    """

    connection: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def type(self) -> str:
        """The `type` of the connection in YAML."""
        return str(self.connection["type"])


class MirrorSupport(ABC):
    """How a mirror uses a transport."""

    #: How a target in one line begins, up to the first colon.
    SCHEMES: ClassVar[tuple[str, ...]]
    #: A target in one line, for messages.
    FORM: ClassVar[str]
    #: Kind of value (`text`, `number`, `boolean`) -> the type of a column that keeps every such value
    #: exactly, one of `daemon.mirror.fit_columns.FITS`. Empty: the target has no columns.
    COLUMN_TYPES: ClassVar[Mapping[str, str]] = {}
    #: The connection has a `password`, so `$TARGET_PASSWORD` counts even for a target without a user.
    HAS_PASSWORD: ClassVar[bool] = False

    @abstractmethod
    def parse(self, text: str) -> Endpoint:
        """Return the settings of a connection to a target.

        Args:
            text: the target in one line, with one of `SCHEMES`.

        Raises:
            ConfigError: it is not a valid target.
        """

    @abstractmethod
    def make_output(self, name: str) -> Mapping[str, Any]:
        """Return the settings of the output.

        Args:
            name: letters, digits, `_` and `-`, at most 63 characters.
        """

    def trust(self, endpoint: Endpoint, ca_bundle: Path) -> Endpoint:
        """Return the endpoint whose server's certificate is verified with those in a file.

        Raises:
            ConfigError: the target is not reached by TLS.
        """
        raise ConfigError(
            f"A target of type {endpoint.type} has no server whose certificate could be verified with "
            f"{ca_bundle}.",
            remedy="remove `--target-ca`",
        )

    def read_columns(self, connection: Any, output: Any) -> Mapping[str, str]:  # noqa: ARG002  # some have none
        """Return the columns of the output's table, column -> type; empty if there is no table.

        Args:
            connection: validated settings of the server.
            output: validated settings of the output.

        Raises:
            PillowError: the table cannot be read.
        """
        return {}


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ConfigError: it is not a valid URL.
    """
    if stray := find_stray_password(url):
        raise ConfigError(f"The target {stray}.", remedy=f"{STRAY_PASSWORD_REMEDY}: {TARGET_PASSWORD}")
    try:
        parts = urlsplit(url)
        _ = parts.port  # is only parsed now
    except ValueError as error:
        raise ConfigError(
            f"{redact_address(url)} is not a valid URL: {error}.",
            remedy="write SCHEME://USER@HOST:PORT/NAME",
        ) from None
    return parts


def get_host(parts: SplitResult) -> str:
    """Return host and port without user and password."""
    return parts.netloc.rpartition("@")[2]


def to_login(parts: SplitResult, variable: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return user and password of a URL: settings that name a variable, and the variable's value."""
    if parts.username is None:
        return {}, {}
    auth = {"username": unquote(parts.username), "password": f"${{{variable}}}"}
    return auth, {} if parts.password is None else {variable: unquote(parts.password)}
