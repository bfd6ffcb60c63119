"""Addresses: one spelling for each file, host and server; and whether a folder can be written to."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pillows.errors import AccessError, ConfigError

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which no file can be created.

    Raises:
        ConfigError: it does not exist, or is not a folder.
        AccessError: we may not write there.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} is not a folder.", remedy="create it; pillowd creates files, not their folders"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessError(f"{folder} cannot be written to.", remedy="let the daemon's user write there")


def to_file_address(path: Path) -> str:
    """Return a file's absolute path without links."""
    return os.path.realpath(path)


def to_host_address(host: str) -> str:
    """Return a host in lower case; this machine is `localhost`."""
    return "localhost" if host.lower() in _LOOPBACK else host.lower()


def to_server_address(url: str) -> str:
    """Return host, port and path of a server, equal for every spelling of its URL."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{to_host_address(parts.hostname or '')}:{port}{parts.path.rstrip('/')}"
