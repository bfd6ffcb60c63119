"""``python -m tests.servers``: what this machine lacks for the tests, and what replaces it.

Usage:
    python -m tests.servers [check]              one line: what is missing and what replaces it
    python -m tests.servers install [NAME ...]   fetch the servers, with progress; what cannot be had is an
                                                 error with CI=true only: tests skip it on a laptop
    python -m tests.servers start NAME [--port PORT] [--data DIRECTORY]
                                                 run one in the foreground, until Ctrl-C
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from tests.servers.packages import say
from tests.servers.process import Server, ServerUnavailable
from tests.servers.requirements import describe

NAMES = ("couchdb", "postgres", "elasticsearch", "opensearch", "kafka")
MODULES = ("couchdb.process", "postgres", "elasticsearch", "opensearch", "kafka")
CLASSES = ("CouchDB", "Postgres", "Elasticsearch", "OpenSearch", "Kafka")


def servers() -> dict[str, type[Server]]:
    """The servers by name. They need what `check` runs without: it comes before anything is installed."""
    modules = [import_module(f"tests.servers.{name}") for name in MODULES]
    classes = [getattr(module, name) for module, name in zip(modules, CLASSES, strict=True)]
    return {server.name: server for server in classes}


def install(names: list[str]) -> int:
    """Fetches what the servers are made of, all of them even if one fails."""
    failed = 0
    known: dict[str, Callable[[], object]] = {name: server.install for name, server in servers().items()}
    known["chromium"] = import_module("tests.servers.chromium").find_chromium
    known["prometheus"] = import_module("tests.servers.prometheus").Prometheus.install
    for name in names or known:
        began = time.monotonic()
        say(f"{name} ...")
        try:
            known[name]()
        except ServerUnavailable as unavailable:
            failed += 1
            say(f"{name} cannot be had: {unavailable}")
        else:
            say(f"{name} is ready ({time.monotonic() - began:.1f} s)")
    return 1 if failed and os.environ.get("CI") == "true" else 0


def start(name: str, port: int | None, data: Path | None) -> int:
    """Runs one server until it is told to stop."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with servers()[name](port=port, data_dir=data) as server:
        print(f"{name}: {server.where} (log: {server.log_path}; Ctrl-C stops it)", flush=True)
        while not stop.wait(0.5):
            if server.pid is None:
                say(f"{name} has ended by itself; see {server.log_path}")
                return 1
    return 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("check")
    installing = commands.add_parser("install")
    installing.add_argument("names", nargs="*", choices=[*NAMES, "chromium", "prometheus", []])
    starting = commands.add_parser("start")
    starting.add_argument("name", choices=NAMES)
    starting.add_argument("--port", type=int)
    starting.add_argument(
        "--data", type=Path, help="keep the data in this folder; by default it is removed at the end"
    )
    given = parser.parse_args()
    if given.command == "install":
        return install(given.names)
    if given.command == "start":
        return start(given.name, given.port, given.data and given.data.resolve())
    print(describe())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ServerUnavailable as unavailable:
        sys.exit(str(unavailable))
