"""Where files and servers are: whether a folder can be written in, and one spelling for each place."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pillows.errors import AccessError, ConfigError

_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_folder(folder: Path) -> None:
    """Refuses a folder in which no file can be made.

    Raises:
        ConfigError: it is not there, or no folder.
        AccessError: we may not write there.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder.", remedy="make it; pillowd makes files, not their folders")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessError(f"{folder} cannot be written to.", remedy="let the daemon's user write there")


def file_place(path: Path) -> str:
    """A file by its one name: absolute, without links on the way."""
    return os.path.realpath(path)


def host_place(host: str) -> str:
    """A host by one name: in lower case, and this machine is `localhost`."""
    return "localhost" if host.lower() in _LOOPBACK else host.lower()


def server_place(url: str) -> str:
    """A server by one address, whatever the case, with its port."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    return f"{host_place(parts.hostname or '')}:{port}{parts.path.rstrip('/')}"
