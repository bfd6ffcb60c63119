"""A daemon with all its listeners: the read-only one, the admin socket, and the admin listener on TCP."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.acceptance.process import Pillowd, couchdb
from tests.servers.couch_client import CouchDatabase
from tests.servers.process import free_port
from tests.support.certificate import make_certificate
from tests.support.http_listener import HttpListener

TOKEN = "operators-token-of-forty-characters-long"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
#: May change, and may not look.
WRITER_TOKEN = "writers-token-of-rather-forty-characters"


class House:
    """A daemon with all its listeners, and these as clients see them."""

    def __init__(self, folder: Path, couch: CouchDatabase, **more: Any) -> None:
        self.ports = (free_port(), free_port())
        cert, key = make_certificate(folder)
        tokens = []
        for name, token, scopes in (("ops", TOKEN, ["read", "write"]), ("writer", WRITER_TOKEN, ["write"])):
            (folder / name).write_text(hashlib.sha256(token.encode()).hexdigest())
            (folder / name).chmod(0o600)
            tokens.append({"name": name, "sha256": f"${{file:{folder}/{name}}}", "scopes": scopes})
        self.daemon = Pillowd(
            folder,
            pillows={
                name: {
                    "source": {"connection": "couch", "database": couch.name},
                    "transport": [{"connection": "nowhere"}],
                }
                for name in ("cases", "visits")
            }
            | more.pop("pillows", {}),
            connections={
                "couch": couchdb(couch.url.rpartition("/")[0], couch.auth),
                "nowhere": {"type": "null"},
                **more.pop("connections", {}),
            },
            daemon={
                "http": {"listen": f"127.0.0.1:{self.ports[0]}"},
                "admin": {
                    "listen": f"unix:{folder}/admin.sock",
                    "tcp": {
                        "listen": f"127.0.0.1:{self.ports[1]}",
                        "tls": {"cert": str(cert), "key": str(key)},
                        "tokens": tokens,
                    },
                },
            },
            **more,
        )
        self.read = HttpListener(("127.0.0.1", self.ports[0]))
        self.admin = HttpListener(folder / "admin.sock")
        self.tcp = HttpListener(("127.0.0.1", self.ports[1]), cert=cert)

    def audit(self) -> list[dict[str, Any]]:
        """Every line of the audit log's files."""
        files = sorted((self.daemon.folder / "state" / "audit").iterdir())
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]
