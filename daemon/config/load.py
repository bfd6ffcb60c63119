"""Load a configuration: valid settings, or every problem at once.

The phases, each a function that returns `(value, problems)`:

1. load, include and interpolate: files to one filled tree (`yaml`);
2. validate: connections, then pillows, then the rest (`validation`);
3. cross-check: rules for several keys, or several pillows (`validation.cross_checks`).

Each phase continues with the valid parts.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr, ValidationError

from daemon.config.default_folders import find_default_folders, with_default_folders
from daemon.config.environment import IN_ENVIRONMENT
from daemon.config.listeners import AdminOptions
from daemon.config.models import Config
from daemon.config.problems import ConfigErrors, ConfigProblem, ProblemCollector
from daemon.config.validation.connections import validate_connections
from daemon.config.validation.coordination import check_coordination
from daemon.config.validation.cross_checks import cross_check
from daemon.config.validation.pillows import validate_pillows
from daemon.config.validation.secret_files import check_secret_files
from daemon.config.validation.validate import validate
from daemon.config.yaml.includes import load_tree
from daemon.config.yaml.nodes import Node
from pillows.options import SecretAddress
from pillows.redaction import find_secrets

__all__ = ["Config", "ConfigErrors", "ConfigProblem", "find_admin_socket", "load"]


def load(
    path: str | Path,
    environ: Mapping[str, str] | None = None,
    *,
    checks: Sequence[Callable[[Config], list[ConfigProblem]]] = (),
    plugins: bool = True,
) -> Config:
    """Load a configuration file and all that it includes.

    Nothing is connected to. Only the modules of the transports are imported, and those in
    `daemon.plugins_path` if the type of a connection is not known otherwise.

    Args:
        path: the main file, or `IN_ENVIRONMENT`.
        environ: the environment for `${VAR}` and the default folders; the process's unless given.
        checks: further checks; they see the valid parts of a configuration that has problems.
        plugins: import those modules. If not, any settings of such a connection are valid.

    Raises:
        ConfigErrors: it has problems; `problems` has all of them.
    """
    environ = os.environ if environ is None else environ
    problems = ProblemCollector()
    tree = problems.take(load_tree(Path(path), environ))
    if tree is None:
        raise ConfigErrors(problems)
    config = problems.take(_validate_tree(tree.node, plugins=plugins))
    if config is not None:
        problems += check_secret_files(config, environ.get("CREDENTIALS_DIRECTORY", ""))
        for check in checks:
            problems += check(config)
    if config is None or problems:
        raise ConfigErrors(problems, tree.secrets)
    config = with_default_folders(config, environ)
    return config.with_origin(tree.node, tuple(_find_exposed_secrets(config)))


def find_admin_socket(path: str | Path, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the admin socket of a daemon whose configuration may have problems by now.

    It is the one that the configuration names; else, and if the file is not YAML, the default one.

    Args:
        path: the main file, or `IN_ENVIRONMENT`.
        environ: the environment for `${VAR}` and the default folders; the process's unless given.

    Returns:
        The socket; None if there is none, if its own line is wrong, or if there is no such file.
    """
    environ = os.environ if environ is None else environ
    tree, _ = load_tree(Path(path), environ)
    if tree is None and not Path(path).is_file():
        return None
    listen = None if tree is None else tree.node.find(("daemon", "admin", "listen"))
    if listen is None:
        return find_default_folders(environ, uid=os.getuid())[1].absolute() / "admin.sock"
    try:
        return None if listen.broken else AdminOptions(listen=listen.value).path
    except ValidationError:
        return None


def _validate_tree(root: Node, *, plugins: bool) -> tuple[Config | None, ProblemCollector]:
    problems = ProblemCollector()
    connections = problems.take(validate_connections(root, plugins=plugins))
    pillows = problems.take(validate_pillows(root, connections))
    problems += cross_check(pillows, connections)
    valid = {pillow.name: pillow.config for pillow in pillows if pillow.config is not None}
    given = {"connections": connections.valid, "pillows": valid}
    config = problems.take(validate(Config, root.without("connections", "pillows"), (), given))
    if config is not None:
        config = config.with_origin(root, ())
        problems += check_coordination(config)
    return config, problems


def _find_exposed_secrets(config: Config) -> Iterator[ConfigProblem]:
    """Yield a problem for each secret in a file that every user of the machine can read."""
    for name, connection in config.connections.items():
        for path, secret in find_secrets(connection.options, ("connections", name)):
            node = config.root.find(path)
            if node is None or node.written is not None or _is_public(secret):
                continue
            file = node.place.file
            if file == str(IN_ENVIRONMENT):
                continue
            if Path(file).stat().st_mode & stat.S_IROTH:
                yield ConfigProblem(
                    place=node.shown_at,
                    path=path,
                    message=f"a secret is in {file}, which every user of this machine can read",
                    remedy=f"chmod o-r {file}, or use `${{credential:name}}` or `${{file:/path}}`",
                )


def _is_public(secret: SecretStr) -> bool:
    """Return whether a secret is an address without a password."""
    return isinstance(secret, SecretAddress) and secret.redacted() == secret.get_secret_value()
