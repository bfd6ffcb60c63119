"""A process that takes bulks of documents as CouchDB does, forgets them, and may be stopped in between.

    python bulk_server.py

It prints its port. A GET of `/taken` tells how many documents it has taken.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Bulks(BaseHTTPRequestHandler):
    """Answers for one database, which has every document that it is given."""

    protocol_version = "HTTP/1.1"
    taken = 0

    def do_GET(self) -> None:
        self._answer({"taken": Bulks.taken, "db_name": "db"})

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Bulks.taken += len(content["docs"])
        self._answer([{"ok": True, "id": doc["_id"], "rev": "1-a"} for doc in content["docs"]])

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _answer(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bulks)
    print(server.server_port, flush=True)
    server.serve_forever()
