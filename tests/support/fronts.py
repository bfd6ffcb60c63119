"""Fronts of a server: a TLS port of its own, or a path that all requests begin with."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import pytest
import requests
from gevent import socket
from gevent.pywsgi import WSGIServer
from gevent.server import StreamServer

_BLOCK_BYTES = 65536


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return certificate and key of 127.0.0.1, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so there is no certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


@contextmanager
def serve_tls(address: tuple[str, int], certificate: Path, key: Path) -> Iterator[int]:
    """Yield a port where a plain server is reached by TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def connect(client: Any, _address: object) -> None:
        with socket.create_connection(address) as server:
            both = [gevent.spawn(_copy, client, server), gevent.spawn(_copy, server, client)]
            gevent.joinall(both, count=1)
            gevent.killall(both)

    front = StreamServer(("127.0.0.1", 0), connect, ssl_context=context)
    front.start()
    port = front.server_port
    assert port is not None
    try:
        yield port
    finally:
        front.stop(timeout=1)


def _copy(source: Any, target: Any) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK_BYTES):
            target.sendall(block)


@contextmanager
def serve_prefix(url: str, prefix: str) -> Iterator[str]:
    """Yield the URL, with a path, of a proxy that takes that path off; other requests are answered 404."""
    kept = ("content-type", "content-encoding", "accept", "authorization")

    def forward(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        if not path.startswith(f"{prefix}/"):
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"nothing here"]
        headers = {name: environ[key] for name in kept if (key := _to_key(name)) in environ}
        body = environ["wsgi.input"].read()
        place = f"{url}{quote(path[len(prefix) :], safe='/,*')}?{environ['QUERY_STRING']}"
        answer = requests.request(environ["REQUEST_METHOD"], place, headers=headers, data=body, timeout=60)
        names = ("Content-Type", "X-Elastic-Product")
        told = [(name, answer.headers[name]) for name in names if name in answer.headers]
        start(f"{answer.status_code} {answer.reason}", told)
        return [answer.content]

    front = WSGIServer(("127.0.0.1", 0), forward, log=None, error_log=None)
    front.start()
    try:
        yield f"http://127.0.0.1:{front.server_port}{prefix}"
    finally:
        front.stop(timeout=1)


def _to_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key == "CONTENT_TYPE" else f"HTTP_{key}"
