"""The configuration of a mirror: one pillow, made from the command line.

It is kept in the mirror's folder beside the state. The next run finds both, continues from the last
checkpoint, and keeps the columns that were chosen at first, since other columns would need another table.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct
from msgspec.structs import replace

from checkpoints.files import replace_file, sync_directory
from daemon.cli.exit_codes import CommandError
from daemon.config.dump import format_yaml
from daemon.config.load import load
from daemon.config.load_options import parse_workers
from daemon.config.models import Config
from daemon.config.trust import check_file
from daemon.config.yaml.interpolate import escape
from daemon.mirror.columns import make_transform
from daemon.mirror.targets import (
    SOURCE_PASSWORD,
    parse_source,
    parse_target,
    to_plain_name,
)
from pillows import registry
from pillows.databases.names import is_glob
from pillows.errors import ConfigError
from pillows.transports.common.mirroring import TARGET_PASSWORD, Endpoint, MirrorSupport

#: Names of the two connections.
SOURCE, TARGET = "couch", "target"
#: Names of the configuration and the log in a mirror's folder.
CONFIG_FILE, LOG_FILE = "pillowd.yaml", "pillowd.log"

#: Longest path of a unix socket (unix(7)).
_SOCKET_BYTES = 107
#: Chooses the columns of a new table, given the configuration without columns.
ChooseColumns = Callable[[Config], Mapping[str, str]]
#: Returns the columns of the existing table; None if there is no table.
FindColumns = Callable[[Config], Mapping[str, str] | None]


class Mirror(Struct, frozen=True, kw_only=True):
    """One database and one target.

    Attributes:
        source: the server of the database.
        database: name of the database, or the pattern of several.
        target: the target.
        name: name of the pillow, and of its table, index or file.
        folder: folder of configuration and state.
        on_recreated: as `SourceOptions.on_recreated`.
        workers: as `LoadOptions.workers`.
    """

    source: Endpoint
    database: str
    target: Endpoint
    name: str
    folder: Path
    on_recreated: str = "fail"
    workers: int | str = 0

    @property
    def config_path(self) -> Path:
        """Path of the mirror's configuration."""
        return self.folder / CONFIG_FILE

    @property
    def support(self) -> MirrorSupport:
        """The support of the target's transport for mirrors."""
        support = registry.transport(self.target.type).mirror
        assert support is not None  # noqa: S101  # `parse_target` has found it
        return support

    @property
    def secrets(self) -> Mapping[str, str]:
        """Environment variable -> the password that was given in a URL on the command line."""
        return {**self.source.secrets, **self.target.secrets}

    def make_settings(self, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return {
            "version": 1,
            "daemon": {
                "state_dir": escape(str(self.folder)),
                "admin": {"listen": escape(f"unix:{_choose_socket(self.folder)}")},
                "http": {"listen": None},
            },
            "connections": {SOURCE: _format_connection(self.source), TARGET: _format_connection(self.target)},
            "pillows": {
                self.name: {
                    "source": self._make_source(),
                    **make_transform(columns or {}),
                    **({"load": {"workers": self.workers}} if self.workers else {}),
                    "transport": [{"connection": TARGET, **self._make_output(columns)}],
                }
            },
        }

    def _make_source(self) -> dict[str, Any]:
        name = escape(self.database)
        which = {"databases": name} if is_glob(self.database) else {"database": name, "on_missing": "fail"}
        return {"connection": SOURCE, **which, "on_recreated": self.on_recreated}

    def _make_output(self, columns: Mapping[str, str] | None) -> dict[str, Any]:
        settings = self.support.make_output(self.name)
        if columns is None or not self.support.COLUMN_TYPES:
            return dict(settings)
        # `columns` is written even if it is empty: it records the choice.
        return {**settings, "columns": dict(columns)}


def parse_mirror(
    url: str,
    target: str,
    *,
    name: str | None,
    state_dir: Path,
    source_ca: Path | None = None,
    target_ca: Path | None = None,
    on_recreated: str = "fail",
    workers: str = "0",
) -> Mirror:
    """Parse the command line.

    Args:
        url: URL of the database.
        target: the target in one line.
        name: name of the pillow and its table, index or file; by default derived from the database's.
        state_dir: parent of the mirrors' folders.
        source_ca: certificates to verify the source's server with, instead of the system's.
        target_ca: the same for the target's.
        on_recreated: as `SourceOptions.on_recreated`.
        workers: a number, or `auto`.

    Raises:
        ConfigError: an argument is not valid.
    """
    source, database = parse_source(url)
    place = parse_target(target)
    chosen = to_plain_name(database) if name is None else name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", chosen):
        raise ConfigError(
            f"{chosen!r} is not a valid name.", remedy="use letters, digits, _ and -, 63 at most"
        )
    # The folder depends neither on where the password is given nor on certificates.
    settings = sorted((item for item in place.connection.items() if item[0] != "password"), key=str)
    same = f"{source.connection['url']}\n{database}\n{settings}\n{chosen}"
    key = f"{chosen}-{place.type}-{hashlib.sha256(same.encode()).hexdigest()[:8]}"
    if source_ca is not None:
        trusted = {**source.connection, "ca_bundle": escape(str(source_ca.absolute()))}
        source = replace(source, connection=trusted)
    mirror = Mirror(
        source=source,
        database=database,
        target=place,
        name=chosen,
        folder=state_dir.absolute() / key,
        on_recreated=on_recreated,
        workers=parse_workers(workers),
    )
    if target_ca is None:
        return mirror
    return replace(mirror, target=mirror.support.trust(place, target_ca.absolute()))


def prepare(
    mirror: Mirror,
    choose: ChooseColumns | None,
    environ: Mapping[str, str] = os.environ,
    *,
    find: FindColumns = lambda _: None,
) -> Config:
    """Write the mirror's configuration into its folder, and make the folders that it needs.

    Args:
        mirror: the mirror.
        choose: chooses a table's columns if no earlier run did; None for the whole document alone.
        environ: the environment, with passwords that are not in the URLs.
        find: returns the columns of an existing table.

    Raises:
        ConfigError: a password is missing; or the table has columns, and none are wanted.
        ConfigError: others could have written the folder.
        ConfigErrors: the settings contradict each other.
        OSError: a folder cannot be made.
    """
    known = {**environ, **mirror.secrets}
    mirror = _with_target_password(mirror, known)
    _require_passwords(mirror, known)
    check_file(mirror.config_path)
    mirror.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mirror.target.folder is not None:
        mirror.target.folder.mkdir(parents=True, exist_ok=True)
    columns = _decide_columns(mirror, choose, find, known) if mirror.support.COLUMN_TYPES else {}
    return _store(mirror, columns, known)


def _with_target_password(mirror: Mirror, environ: Mapping[str, str]) -> Mirror:
    """Use `$TARGET_PASSWORD` if it is set and the URL has no password.

    It is not required: a target may find its password elsewhere (PostgreSQL: `~/.pgpass`).
    """
    connection = mirror.target.connection
    if not mirror.support.HAS_PASSWORD or "password" in connection or TARGET_PASSWORD not in environ:
        return mirror
    target = replace(mirror.target, connection={**connection, "password": f"${{{TARGET_PASSWORD}}}"})
    return replace(mirror, target=target)


def _decide_columns(
    mirror: Mirror, choose: ChooseColumns | None, find: FindColumns, environ: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the columns of an earlier run, else those of the existing table, else newly chosen ones."""
    chosen = read_chosen_columns(mirror)
    if (choose and chosen is not None) or not (choose or chosen):
        return chosen or {}
    config = _store(mirror, chosen, environ)
    existing = find(config)
    if choose:
        return choose(config) if existing is None else existing
    if existing:
        raise ConfigError(
            f"The table {mirror.name} has columns already.",
            remedy="remove `--columns none`, or use another table with --name",
        )
    return {}


def _require_passwords(mirror: Mirror, environ: Mapping[str, str]) -> None:
    for place, variable in ((mirror.source, SOURCE_PASSWORD), (mirror.target, TARGET_PASSWORD)):
        if f"${{{variable}}}" in str(place.connection) and variable not in environ:
            raise ConfigError(
                f"The URL of the {place.type} server names a user without a password.",
                remedy=f"set {variable} in the environment",
            )


def read_chosen_columns(mirror: Mirror) -> Mapping[str, str] | None:
    """Return the columns that an earlier run chose; None if there was none."""
    if not mirror.config_path.exists():
        return None
    settings = yaml.safe_load(mirror.config_path.read_text(encoding="utf-8"))
    columns: Mapping[str, str] | None = settings["pillows"][mirror.name]["transport"][0].get("columns")
    return columns


def write_config(mirror: Mirror, path: Path, into: Callable[[str], object] | None = None) -> None:
    """Write the configuration of a prepared mirror to another file, which only its owner can read.

    Args:
        mirror: the mirror.
        path: the file.
        into: takes the text instead of the file.

    Raises:
        CommandError: the file exists.
    """
    text = mirror.config_path.read_text(encoding="utf-8")
    if into is not None:
        into(text)
        return
    try:
        fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} exists already. Remedy: remove it, or name another file") from None
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(text)


def _store(mirror: Mirror, columns: Mapping[str, str] | None, environ: Mapping[str, str]) -> Config:
    """Write the configuration and load it; a crash leaves the old or the new file."""
    text = format_yaml(mirror.make_settings(columns))
    head = "# Written by `pillowd mirror`; `pillowd run` does the same with this file as its --config.\n"
    if variables := [name for name in (SOURCE_PASSWORD, TARGET_PASSWORD) if f"${{{name}}}" in text]:
        head += f"# The passwords are taken from {' and '.join(variables)} in the environment.\n"
    fresh = mirror.config_path.with_suffix(".new")
    replace_file(fresh, (head + text).encode(), mode=0o600)
    load(fresh, environ)
    fresh.replace(mirror.config_path)
    sync_directory(fresh.parent)
    return load(mirror.config_path, environ)


def _format_connection(place: Endpoint) -> dict[str, Any]:
    """Return a connection's settings as they must be written: only the password may be `${VARIABLE}`."""

    def format_value(name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: format_value(key, inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [format_value(name, inner) for inner in value]
        return value if name == "password" else escape(value)

    return {name: format_value(name, value) for name, value in place.connection.items()}


def _choose_socket(folder: Path) -> Path:
    """Return the path of the admin socket: in the folder, or in the runtime folder if it is too long."""
    path = folder / "admin.sock"
    if len(os.fsencode(path)) <= _SOCKET_BYTES:
        return path
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return runtime / f"pillowd-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}.sock"
