"""Find the folders of state and admin socket when the configuration does not name them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from daemon.config.models import Config

#: Where a service keeps its state and its socket (Filesystem Hierarchy Standard 3.0, 5.8 and 3.15).
SYSTEM_STATE = Path("/var/lib/pillowd")
SYSTEM_RUNTIME = Path("/run/pillowd")


def find_default_folders(environ: Mapping[str, str], *, uid: int) -> tuple[Path, Path]:
    """Return the default folders of the state and of the admin socket.

    systemd's $STATE_DIRECTORY and $RUNTIME_DIRECTORY win; otherwise root has the system's folders, and
    any other user those of the XDG base directory specification.
    """
    state = environ.get("STATE_DIRECTORY", "").split(":")[0]
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    home = environ.get("HOME", "")
    state_dir = SYSTEM_STATE
    if state:
        state_dir = Path(state)
    elif uid != 0 and home:
        state_dir = Path(environ.get("XDG_STATE_HOME") or Path(home, ".local", "state")) / "pillowd"
    if runtime:
        return state_dir, Path(runtime)
    if uid == 0 or not home:
        return state_dir, SYSTEM_RUNTIME
    xdg = environ.get("XDG_RUNTIME_DIR")
    return state_dir, Path(xdg) / "pillowd" if xdg else state_dir


def with_default_folders(config: Config, environ: Mapping[str, str]) -> Config:
    """Return the configuration with the folders that it does not name."""
    daemon = config.daemon
    state_dir, runtime_dir = find_default_folders(environ, uid=os.getuid())
    if config.root.find(("daemon", "state_dir")) is None:
        daemon = daemon.model_copy(update={"state_dir": state_dir})
    if config.root.find(("daemon", "admin", "listen")) is None:
        listen = f"unix:{(runtime_dir / 'admin.sock').absolute()}"
        daemon = daemon.model_copy(update={"admin": daemon.admin.model_copy(update={"listen": listen})})
    return config.model_copy(update={"daemon": daemon})
