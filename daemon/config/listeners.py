"""Settings of the daemon's listeners: the read-only one, and those of the whole API."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from pillows.options import Options

#: Where the page, the health checks and the metrics are unless the configuration says otherwise.
DEFAULT_HTTP = "127.0.0.1:9147"

#: `host:port`, `[::1]:port`.
_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(?P<port>\d{1,5})")
#: sun_path has 108 bytes, the last one zero (unix(7)).
_SOCKET_BYTES = 107


def split_address(address: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port of `host:port`.

    Raises:
        ValueError: the text is not a valid address; the message shows the form.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 <= int(found["port"]) <= 65535:
        raise ValueError("needs a host and a port; write 127.0.0.1:9147, or [::1]:9147")
    return found["host"].strip("[]"), int(found["port"])


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a host's address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HttpOptions(Options):
    """The read-only HTTP listener: page, health checks, metrics and state; nothing can be changed by it.

    Attributes:
        listen: `host:port`; null switches it off.
        allow_remote: whether the address may be one that other machines reach.
        hosts: names by which clients may call it (the `Host` header), other than localhost and the address.
    """

    listen: str | None = DEFAULT_HTTP
    allow_remote: bool = False
    hosts: tuple[str, ...] = ()

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str | None) -> str | None:
        if listen is not None:
            split_address(listen)
        return listen

    @model_validator(mode="after")
    def _check_remote(self) -> Self:
        if (
            self.listen is not None
            and not self.allow_remote
            and not is_loopback(split_address(self.listen)[0])
        ):
            raise ValueError(
                f"`listen: {self.listen}` lets every machine of the network read the state of the pillows; "
                "listen on 127.0.0.1, or write `allow_remote: true`"
            )
        return self


class TlsOptions(Options):
    """The certificate of a listener; TLS 1.2 or later.

    Attributes:
        cert: file with the certificate and its chain, as PEM.
        key: file with its private key, which only its owner may read.
    """

    cert: Path
    key: Path


class TokenOptions(Options):
    """A token that a client sends as `Authorization: Bearer TOKEN`.

    Attributes:
        name: what the audit log calls its holder.
        sha256: SHA-256 of the token, in hexadecimal. The token itself has 32 characters or more.
        scopes: `read` for requests that change nothing, `write` for the others, `data` for documents.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    sha256: SecretStr
    scopes: Annotated[tuple[Literal["read", "write", "data"], ...], Field(min_length=1)] = ("read",)

    @field_validator("sha256")
    @classmethod
    def _check_digest(cls, sha256: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256.get_secret_value().strip()):
            raise ValueError(
                "is not the SHA-256 of a token; make both with "
                "`openssl rand -hex 32 | tee token | tr -d '\\n' | sha256sum`, and write the 64 digits"
            )
        return sha256

    @property
    def digest(self) -> str:
        """The 64 hexadecimal digits, in lower case."""
        return self.sha256.get_secret_value().strip().lower()


class TcpOptions(Options):
    """The whole API on a TCP port: with TLS and tokens only.

    Attributes:
        listen: `host:port`.
        tls: see `TlsOptions`.
        tokens: the tokens of the clients that may use it; see `TokenOptions`.
        hosts: more names by which clients may call it (the `Host` header).
    """

    listen: str
    tls: TlsOptions | None = None
    tokens: tuple[TokenOptions, ...] = ()
    hosts: tuple[str, ...] = ()

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str) -> str:
        split_address(listen)
        return listen

    @model_validator(mode="after")
    def _check_closed(self) -> Self:
        if self.tls is None:
            raise ValueError(
                "needs `tls`: without it everybody on the way reads the tokens; "
                "write `tls: { cert: FILE, key: FILE }`"
            )
        if not self.tokens:
            raise ValueError(
                "needs `tokens`: without one, every client that reaches the port controls the pillows; "
                'write `tokens: [{ name: ops, sha256: "${credential:ops}", scopes: [read, write] }]`'
            )
        names = [token.name for token in self.tokens]
        if len(set(names)) < len(names):
            raise ValueError(
                "has two `tokens` with the same name; the audit log could not distinguish them: rename one"
            )
        return self


class AdminOptions(Options):
    """The listeners of the whole API, by which commands reach the running daemon.

    Attributes:
        listen: `unix:` and the path of a socket, which the daemon's user and group may use; null switches
            it off.
        tcp: see `TcpOptions`; null switches it off.
    """

    listen: str | None = "unix:/run/pillowd/admin.sock"
    tcp: TcpOptions | None = None

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, listen: str | None) -> str | None:
        if listen is None:
            return None
        scheme, _, path = listen.partition(":")
        if scheme != "unix" or not path.startswith("/"):
            raise ValueError("needs `unix:` and an absolute path; write unix:/run/pillowd/admin.sock")
        if len(path.encode()) > _SOCKET_BYTES:
            raise ValueError("is longer than 107 bytes, the longest path of a unix socket; shorten it")
        return listen

    @property
    def path(self) -> Path | None:
        """The socket's path; None where it is switched off."""
        return None if self.listen is None else Path(self.listen.removeprefix("unix:"))
