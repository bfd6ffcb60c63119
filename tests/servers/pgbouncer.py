"""PgBouncer in front of a PostgreSQL server, in transaction mode with few sessions."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.servers.postgres import unprivileged_user
from tests.servers.process import Server

BINARY = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


class PgBouncer(Server):
    """A pool of two sessions for all clients.

    Args:
        dsn: of the PostgreSQL server and database.
    """

    name = "pgbouncer"
    stop_signal = signal.SIGQUIT

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._target = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}

    @classmethod
    def install(cls) -> None:
        """Does nothing: it comes with the system."""

    @property
    def where(self) -> str:
        """The connection string."""
        return self.dsn

    @property
    def dsn(self) -> str:
        """Connection string of the same database through the pool."""
        return make_conninfo(host="127.0.0.1", port=self.port, user="pillowd", dbname=self._target["dbname"])

    def os_user(self) -> str | None:
        """Returns somebody else if we are root: PgBouncer refuses to run as root."""
        return unprivileged_user()

    def prepare(self) -> None:
        """Writes its configuration."""
        target = make_conninfo(**self._target)
        path = self.data_dir / "pgbouncer.ini"
        path.write_text(
            f"[databases]\n* = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nunix_socket_dir =\n"
        )
        self.data_dir.chmod(0o755)
        path.chmod(0o644)

    def command(self) -> Sequence[str | Path]:
        """Returns its command line."""
        return [str(BINARY), self.data_dir / "pgbouncer.ini"]

    def answers(self) -> bool:
        """Asks the server through it."""
        try:
            with psycopg.connect(self.dsn, connect_timeout=5) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True
