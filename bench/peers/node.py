"""Programs that run on Node.js, with their packages from npm as `npm/package-lock.json` pins them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from bench.meter import Reading
from bench.servers import Servers
from tests.servers.packages import cached, run, say
from tests.servers.process import ServerUnavailable

FOLDER = Path(__file__).parent / "npm"
FILES = ("package.json", "package-lock.json")


def cht_sync(servers: Servers) -> Reading:
    """Copy the documents by cht-sync's method."""
    return _measure(servers, "cht-sync's method", "cht_sync.cjs")


def couch2pg(servers: Servers) -> Reading:
    """Run couch2pg."""
    return _measure(servers, "couch2pg 0.7.1", "couch2pg.cjs")


def find_modules() -> Path:
    """Return the folder of the packages; install them first if they are missing.

    Raises:
        ServerUnavailable: Node.js or npm is missing, or npm could not install them.
    """
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise ServerUnavailable(f"{program} is not installed")
    digest = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    return cached(f"bench-peers-{digest[:12]}", _install) / "node_modules"


def _install(folder: Path) -> None:
    say("installing couch2pg and the libraries of cht-sync, by npm")
    for file in FILES:
        shutil.copy(FOLDER / file, folder)
    run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)


def _measure(servers: Servers, name: str, script: str) -> Reading:
    modules = find_modules()
    with servers.empty_postgres() as dsn:
        command = ["node", str(FOLDER / script), servers.database.url, dsn]
        reading = servers.measure(name, command, env={"NODE_PATH": str(modules)})
        servers.check_table(dsn, "couchdb")
    return reading
