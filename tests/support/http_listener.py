"""A client of the HTTP API that shows status, headers and JSON of each answer."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One answer."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class HttpListener:
    """A client of one listener.

    Args:
        address: the path of a unix socket, or host and port.
        cert: the server's certificate, where it speaks TLS.
    """

    def __init__(self, address: Path | tuple[str, int], *, cert: Path | None = None) -> None:
        self.address = address
        self._tls = None if cert is None else ssl.create_default_context(cafile=str(cert))

    def connect(self) -> socket.socket:
        """Return a connection, for requests that are not valid HTTP."""
        if isinstance(self.address, Path):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(60)
            connection.connect(str(self.address))
            return connection
        plain = socket.create_connection(self.address, timeout=60)
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Seen:
        """Send one request; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("localhost", timeout=120)
        connection.sock = self.connect()
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if method != "GET" else {}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body=data, headers={**sent, **given, "Connection": "close"})
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Seen(status=answer.status, headers=names, text=answer.read().decode())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Seen:
        return self.ask("GET", path, **headers)

    def put(self, path: str, **headers: str) -> Seen:
        return self.ask("PUT", path, **headers)
