"""A mirror: one pillow without a configuration of the operator's own.

What the command line says becomes a configuration like any other, kept in the mirror's folder beside its
state. The next run finds both there, goes on where the last one stopped, and keeps the columns that
were chosen then, since other columns would be another table.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from daemon.cli.exit_codes import CommandError
from daemon.config.dump import format_yaml
from daemon.config.interpolate import escape
from daemon.config.load import load
from daemon.config.models import Config
from daemon.mirror.columns import fitting
from daemon.mirror.targets import (
    SOURCE_PASSWORD,
    plain_name,
    read_source,
    read_target,
)
from pillows import registry
from pillows.errors import ConfigError
from pillows.transports.common.mirroring import TARGET_PASSWORD, Endpoint, MirrorSupport

#: Names of the two connections.
SOURCE, TARGET = "couch", "target"
#: The file of the configuration, and of the log, in a mirror's folder.
CONFIG_FILE, LOG_FILE = "pillowd.yaml", "pillowd.log"

#: A unix socket's path has 107 bytes at most (unix(7)).
_SOCKET_BYTES = 107
#: Chooses the columns of a table when there are none yet: given the configuration without them.
ChooseColumns = Callable[[Config], Mapping[str, str]]
#: Says what columns the table has; None where there is no table.
FindColumns = Callable[[Config], Mapping[str, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """One database and one target.

    Attributes:
        source: the server.
        database: the database's name there.
        target: where it goes.
        name: of the pillow, and of its table, index or file.
        folder: configuration and state.
    """

    source: Endpoint
    database: str
    target: Endpoint
    name: str
    folder: Path

    @property
    def config_path(self) -> Path:
        """The mirror's own configuration."""
        return self.folder / CONFIG_FILE

    @property
    def support(self) -> MirrorSupport:
        """How the target's transport is used."""
        support = registry.transport(self.target.type).mirror
        assert support is not None  # noqa: S101  # else `read_target` had refused the target
        return support

    @property
    def secrets(self) -> Mapping[str, str]:
        """Variable -> the password that was given on the command line."""
        return {**self.source.secrets, **self.target.secrets}

    def settings(self, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The configuration as plain values."""
        return {
            "version": 1,
            "daemon": {
                "state_dir": escape(str(self.folder)),
                "control": {"listen": escape(f"unix:{_socket(self.folder)}")},
            },
            "connections": {SOURCE: _written(self.source), TARGET: _written(self.target)},
            "pillows": {
                self.name: {
                    "source": {
                        "connection": SOURCE,
                        "database": escape(self.database),
                        "on_missing": "fail",
                    },
                    **fitting(columns or {}),
                    "transport": [{"connection": TARGET, **self._output(columns)}],
                }
            },
        }

    def _output(self, columns: Mapping[str, str] | None) -> dict[str, Any]:
        settings = self.support.make_output(self.name)
        if columns is None or not self.support.COLUMN_TYPES:
            return dict(settings)
        # `columns` is written even when it is empty: it says that they were chosen.
        return {**settings, "columns": dict(columns)}


def read(url: str, target: str, *, name: str | None, state_dir: Path) -> Mirror:
    """What the command line says.

    Args:
        url: of the database.
        target: where it goes.
        name: of the pillow and its table, index or file; made from the database's unless given.
        state_dir: where the mirrors' folders are.

    Raises:
        ConfigError: something of it cannot be understood.
    """
    source, database = read_source(url)
    place = read_target(target)
    chosen = plain_name(database) if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", chosen):
        raise ConfigError(f"{chosen!r} cannot be a name.", remedy="use letters, digits, _ and -, 63 at most")
    # Wherever the password stands, it is the same place.
    settings = sorted((item for item in place.connection.items() if item[0] != "password"), key=str)
    same = f"{source.connection['url']}\n{database}\n{settings}\n{chosen}"
    key = f"{chosen}-{place.type}-{hashlib.sha256(same.encode()).hexdigest()[:8]}"
    return Mirror(
        source=source, database=database, target=place, name=chosen, folder=state_dir.absolute() / key
    )


def prepare(
    mirror: Mirror,
    choose: ChooseColumns | None,
    environ: Mapping[str, str] = os.environ,
    *,
    find: FindColumns = lambda _: None,
) -> Config:
    """Writes the mirror's configuration into its folder, and makes the folders that it needs.

    Args:
        mirror: what is wanted.
        choose: chooses a table's columns when no earlier run did; None for the whole document alone.
        environ: where passwords are that stood not in the URLs.
        find: says what columns the table has already.

    Raises:
        ConfigError: a password is missing; the table has columns, and is to have none.
        ConfigErrors: the settings contradict each other.
        OSError: a folder cannot be made.
    """
    known = {**environ, **mirror.secrets}
    mirror = _with_target_password(mirror, known)
    _require_passwords(mirror, known)
    mirror.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mirror.target.folder is not None:
        mirror.target.folder.mkdir(parents=True, exist_ok=True)
    columns = _columns(mirror, choose, find, known) if mirror.support.COLUMN_TYPES else {}
    return _stored(mirror, columns, known)


def _with_target_password(mirror: Mirror, environ: Mapping[str, str]) -> Mirror:
    """Use `$TARGET_PASSWORD` if it is set: a target may have other places for a password, too."""
    connection = mirror.target.connection
    if not mirror.support.HAS_PASSWORD or "password" in connection or TARGET_PASSWORD not in environ:
        return mirror
    target = replace(mirror.target, connection={**connection, "password": f"${{{TARGET_PASSWORD}}}"})
    return replace(mirror, target=target)


def _columns(
    mirror: Mirror, choose: ChooseColumns | None, find: FindColumns, environ: Mapping[str, str]
) -> Mapping[str, str]:
    """What an earlier run chose, what the table has, or what is chosen now: the first that there is."""
    chosen = chosen_columns(mirror)
    if (choose and chosen is not None) or not (choose or chosen):
        return chosen or {}
    config = _stored(mirror, chosen, environ)
    standing = find(config)
    if choose:
        return choose(config) if standing is None else standing
    if standing:
        raise ConfigError(
            f"The table {mirror.name} has columns already, which rows depend on.",
            remedy="leave `--columns none` out, or copy into another table with --name",
        )
    return {}


def _require_passwords(mirror: Mirror, environ: Mapping[str, str]) -> None:
    for place, variable in ((mirror.source, SOURCE_PASSWORD), (mirror.target, TARGET_PASSWORD)):
        if f"${{{variable}}}" in str(place.connection) and variable not in environ:
            raise ConfigError(
                f"The URL of the {place.type} server names a user without a password.",
                remedy=f"set {variable} in the environment",
            )


def chosen_columns(mirror: Mirror) -> Mapping[str, str] | None:
    """The columns that an earlier run chose; None when none did."""
    if not mirror.config_path.exists():
        return None
    settings = yaml.safe_load(mirror.config_path.read_text(encoding="utf-8"))
    columns: Mapping[str, str] | None = settings["pillows"][mirror.name]["transport"][0].get("columns")
    return columns


def write_config(mirror: Mirror, path: Path, into: Callable[[str], object] | None = None) -> None:
    """Writes the configuration of a prepared mirror elsewhere, readable by its owner alone.

    Args:
        mirror: the mirror.
        path: where to; it must not be there.
        into: takes the text instead of the file.

    Raises:
        CommandError: `path` is there.
    """
    text = mirror.config_path.read_text(encoding="utf-8")
    if into is not None:
        into(text)
        return
    try:
        fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} is there already. Remedy: remove it, or name another file") from None
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)


def _stored(mirror: Mirror, columns: Mapping[str, str] | None, environ: Mapping[str, str]) -> Config:
    """Writes the file so that a crash leaves the old or the new one, and loads it."""
    text = format_yaml(mirror.settings(columns))
    head = "# Written by `pillowd mirror`; `pillowd run --config` with this file does the same.\n"
    if variables := [name for name in (SOURCE_PASSWORD, TARGET_PASSWORD) if f"${{{name}}}" in text]:
        head += f"# The passwords are taken from {' and '.join(variables)} in the environment.\n"
    fresh = mirror.config_path.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(head + text)
        file.flush()
        os.fsync(file.fileno())
    load(fresh, environ)
    fresh.replace(mirror.config_path)
    return load(mirror.config_path, environ)


def _written(place: Endpoint) -> dict[str, Any]:
    """A connection as it must be written: only our own `${VARIABLE}` is one."""

    def text(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: text(key, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [text(name, inner) for inner in value]
        return value if name == "password" else escape(value)

    return {name: text(name, value) for name, value in place.connection.items()}


def _socket(folder: Path) -> Path:
    """Where the control socket is: in the folder, or, where its path is too long, in one for sockets."""
    path = folder / "control.sock"
    if len(os.fsencode(path)) <= _SOCKET_BYTES:
        return path
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return runtime / f"pillowd-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}.sock"
