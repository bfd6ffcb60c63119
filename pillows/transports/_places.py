"""Looks whether files can be written in a folder, without writing one."""

from __future__ import annotations

import os
from pathlib import Path

from pillows.errors import AccessError, ConfigError


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
