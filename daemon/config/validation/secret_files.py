"""Check the files that hold secrets of the listeners."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from daemon.config.models import Config
from daemon.config.problems import ConfigProblem, KeyPath
from daemon.config.yaml.interpolate import list_files


def check_secret_files(config: Config, credentials: str) -> Iterator[ConfigProblem]:
    """Yield a problem for each file of the TCP listener's secrets that others may read, or that is missing.

    Args:
        config: a configuration that is valid otherwise.
        credentials: the folder of `${credential:...}`; empty if there is none.
    """
    tcp = config.daemon.admin.tcp
    if tcp is None or tcp.tls is None:
        return
    at: KeyPath = ("daemon", "admin", "tcp")
    files: list[tuple[KeyPath, Path]] = [((*at, "tls", "key"), tcp.tls.key)]
    for index in range(len(tcp.tokens)):
        path = (*at, "tokens", index, "sha256")
        node = config.root.find(path)
        if node is not None and node.written is not None:
            folder = Path(node.place.file).parent
            files += [(path, file) for file in list_files(node.written, folder, credentials)]
    for path, file in files:
        try:
            mode = file.stat().st_mode
        except OSError as error:
            yield config.problem(
                path, f"{file} cannot be read: {error.strerror}", "name a file that is there"
            )
            continue
        if stat.S_IMODE(mode) & 0o077:
            yield config.problem(path, f"other users may read {file}", f"chmod 600 {file}")
