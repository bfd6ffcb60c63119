"""`python -m tests.servers.couchdb`: start the tests' CouchDB.

Usage:
    python -m tests.servers.couchdb --port PORT (--dir DIRECTORY | --memory) --admin USER:PASSWORD
                                    [--shards N] [--session-seconds N] [--failpoint JSON ...]
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import sys
from pathlib import Path

import gevent

from tests.servers.couchdb.node import Node
from tests.servers.couchdb.server import CouchServer


def main() -> int:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.servers.couchdb", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--port", type=int, default=0)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--dir", type=Path)
    where.add_argument("--memory", action="store_true")
    parser.add_argument("--admin", required=True, metavar="USER:PASSWORD")
    parser.add_argument("--shards", type=int, default=2, help="of a database whose creator does not say")
    parser.add_argument("--session-seconds", type=int)
    parser.add_argument("--failpoint", action="append", default=[], metavar="JSON")
    given = parser.parse_args()
    serve(given)
    return 0


def serve(given: argparse.Namespace) -> None:
    """Serve until a signal ends the process, at once, as a node that goes down."""
    sys.set_int_max_str_digits(0)
    gc.set_threshold(50_000, 20, 100)  # cycles are rare, and a collection looks at all documents
    user, _, password = given.admin.partition(":")
    node = Node(given.dir, {user: password}, shards=given.shards)
    if given.session_seconds:
        node.config.set("chttpd_auth", "timeout", str(given.session_seconds))
    for text in given.failpoint:
        node.failpoints.add(json.loads(text))
    server = CouchServer(node, given.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, sys.exit, 0)
    print(f"The tests' CouchDB is ready on http://127.0.0.1:{server.start()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
