"""The tests' CouchDB as a process."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from tests.servers.process import HttpServer

ROOT = Path(__file__).parents[3]
ADMIN = "admin:relax"


class CouchDB(HttpServer):
    """The tests' CouchDB: answers as Apache CouchDB 3.5.0 does (see `tests.servers.couchdb`).

    Args:
        data_dir: where its databases live; a temporary directory of its own if None.
        port: where it listens; a free port if None.
        memory: keep the databases in memory, until it ends.
        admin: the administrator, "user:password".
        shards: of a database whose creator does not say.
        options: further command line options.
    """

    name = "couchdb"

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        memory: bool = False,
        admin: str = ADMIN,
        shards: int = 2,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(data_dir=data_dir, port=port)
        self._options = ["--memory"] if memory else ["--dir", str(self.data_dir / "databases")]
        self._options += ["--admin", admin, "--shards", str(shards), *options]
        self._admin = admin

    @classmethod
    def install(cls) -> None:
        """Do nothing: it runs on the Python of the tests."""

    @property
    def auth(self) -> tuple[str, str]:
        """The administrator's name and password."""
        user, _, password = self._admin.partition(":")
        return (user, password)

    def command(self) -> Sequence[str | Path]:
        """Return its command line."""
        return [sys.executable, "-m", "tests.servers.couchdb", "--port", str(self.port), *self._options]

    def environment(self) -> Mapping[str, str]:
        """Say where its modules are."""
        return {"PYTHONPATH": str(ROOT)}

    def answers(self) -> bool:
        """Ask `/_up`."""
        return requests.get(f"{self.url}/_up", timeout=5).ok

    def fail(self, **fault: Any) -> None:
        """Order a fault; see `tests.servers.couchdb.failpoints`."""
        ordered = requests.get(f"{self.url}/_failpoints", auth=self.auth, timeout=5).json()
        self._put_faults([*ordered, fault])

    def heal(self) -> None:
        """Cancel all faults."""
        self._put_faults([])

    def _put_faults(self, faults: list[Any]) -> None:
        url = f"{self.url}/_failpoints"
        requests.put(url, data=json.dumps(faults), auth=self.auth, timeout=5).raise_for_status()
