"""Loads a configuration: files to one tree, the tree to validated values, or every mistake at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from daemon.config.connections import read_connections
from daemon.config.errors import ConfigErrors, Mistake
from daemon.config.includes import Files
from daemon.config.models import Config, DaemonOptions
from daemon.config.pillows import read_pillows
from daemon.config.problems import Report
from daemon.config.yaml_nodes import Node
from pillows.options import SecretAddress
from pillows.redaction import find_secrets

__all__ = ["Config", "ConfigErrors", "Mistake", "load"]

#: Where a service keeps its state and its socket (Filesystem Hierarchy Standard 3.0, 5.8 and 3.15).
SYSTEM_STATE = Path("/var/lib/pillowd")
SYSTEM_RUNTIME = Path("/run/pillowd")


def load(
    path: str | Path,
    environ: Mapping[str, str] | None = None,
    *,
    looks: Sequence[Callable[[Config], list[Mistake]]] = (),
) -> Config:
    """Loads a configuration file and all that it includes.

    Args:
        path: the main file.
        environ: what `${VAR}` and the default folders are taken from; the process's unless given.
        looks: what else finds mistakes, in what is right where something is wrong already.

    Returns:
        The configuration, valid in itself; nothing was connected to or imported for it but the
        transports' own files, and the plugins where a connection's type is known by nothing else.

    Raises:
        ConfigErrors: it has mistakes; all of them are in `errors`.
    """
    environ = os.environ if environ is None else environ
    report = Report()
    files = Files(environ, report)
    root = files.collect(Path(path))
    config = _read(root, report) if root else None
    if root is not None and config is not None:
        config = config.with_origin(root, ())
        report.mistakes.extend(mistake for look in looks for mistake in look(config))
    if root is None or config is None or report.mistakes:
        raise ConfigErrors(report.mistakes, files.secrets)
    config = config.model_copy(update={"daemon": _with_default_folders(config.daemon, root, environ)})
    return config.with_origin(root, tuple(_exposed_secrets(config, root)))


def _read(root: Node, report: Report) -> Config | None:
    connections = read_connections(root, report)
    pillows = read_pillows(root, connections, report)
    given: dict[str, object] = {"connections": connections.entries, "pillows": pillows}
    config = report.validated(Config, root.without("connections", "pillows"), (), given)
    return config if isinstance(config, Config) else None


def default_folders(environ: Mapping[str, str], *, uid: int) -> tuple[Path, Path]:
    """Where state and socket are kept when the configuration does not say.

    systemd's $STATE_DIRECTORY and $RUNTIME_DIRECTORY win; else root has the system's folders and
    anybody else those of the XDG base directory specification.

    Returns:
        The folder of the state, and that of the control socket.
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


def _with_default_folders(daemon: DaemonOptions, root: Node, environ: Mapping[str, str]) -> DaemonOptions:
    state_dir, runtime_dir = default_folders(environ, uid=os.getuid())
    if root.find(("daemon", "state_dir")) is None:
        daemon = daemon.model_copy(update={"state_dir": state_dir})
    if root.find(("daemon", "control", "listen")) is None:
        listen = f"unix:{(runtime_dir / 'control.sock').absolute()}"
        daemon = daemon.model_copy(update={"control": daemon.control.model_copy(update={"listen": listen})})
    return daemon


def _exposed_secrets(config: Config, root: Node) -> Iterator[Mistake]:
    """Warnings for secrets that stand in a file which every user of the machine can read."""
    for name, entry in config.connections.items():
        at = ("connections", name)
        for path, secret in find_secrets(entry.options, at):
            node = root.find(path)
            if node is None or node.written is not None or _is_public(secret):
                continue
            if _world_readable(node.place.file):
                yield node.mistake(
                    path,
                    f"a secret stands in {node.place.file}, which every user of this machine can read",
                    f"chmod o-r {node.place.file}, or use `${{credential:name}}` or `${{file:/path}}`",
                )


def _is_public(secret: SecretStr) -> bool:
    """Return whether a secret is an address without a password."""
    return isinstance(secret, SecretAddress) and secret.redacted() == secret.get_secret_value()


def _world_readable(file: str) -> bool:
    return bool(Path(file).stat().st_mode & stat.S_IROTH)
