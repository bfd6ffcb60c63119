"""The HTTP session under `pillows.couch.client`: requests, with connections that may be interrupted.

A feed is stopped by ending its greenlet, wherever it waits. urllib3 closes what it has opened on
every way out but two: a greenlet that is interrupted while it connects, or while it looks whether a
kept connection still stands, leaves the socket to the garbage collector. So both are done here.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from gevent import monkey
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pillows.couch.options import CouchConnection

#: Connections kept for short requests; streams beyond it are closed after use anyway.
_POOL_CONNECTIONS = 32

#: A dead peer is noticed by the kernel even where no byte is expected for long.
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


def session(connection: CouchConnection) -> requests.Session:
    """A session for one server, without credentials and without cookies of its own."""
    http = requests.Session()
    http.auth = IgnoreNetrc()
    # Cookies are ours to send (`pillows.couch.auth`): a jar would keep a dead session's.
    http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    http.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
    adapter = _Adapter(pool_connections=1, pool_maxsize=_POOL_CONNECTIONS, max_retries=0)
    http.mount("http://", adapter)
    http.mount("https://", adapter)
    if connection.client_cert:
        certificate, key = str(connection.client_cert), connection.client_key
        http.cert = (certificate, str(key)) if key else certificate
    return http


class IgnoreNetrc(requests.auth.AuthBase):
    """Keeps requests from reading ~/.netrc: credentials come from the configuration alone."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Return the request as it is."""
        return request


def _connect(host: str, port: int, timeout: Any, options: Sequence[Any]) -> socket.socket:
    """A connected socket; none is left open on any other way out.

    Raises:
        OSError: no address of the host took the connection.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(timeout)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


def _opened(connection: HTTPConnection, port: int) -> socket.socket:
    """A connected socket for one of urllib3's connections.

    Raises:
        NewConnectionError: it can't be connected. Not an OSError: urllib3 passes over a reset while it
            sends a request, and would go on to read from a socket that never was.
    """
    try:
        return _connect(connection._dns_host, port, connection.timeout, connection.socket_options or ())  # noqa: SLF001 - as urllib3's own does
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, f"no connection within {connection.timeout} s") from error
    except OSError as error:
        raise NewConnectionError(connection, str(error)) from error


def _stands(sock: socket.socket | None) -> bool:
    """Whether an idle connection is still open: nothing can be read from it, not even its end.

    Asks the kernel without giving way to other greenlets, so nobody can interrupt.
    """
    if sock is None:
        return False
    poll = monkey.get_original("select", "poll")()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)


class _Http(HTTPConnection):
    @property
    def is_connected(self) -> bool:
        return _stands(self.sock)

    def _new_conn(self) -> socket.socket:
        return _opened(self, self.port or 80)


class _Https(HTTPSConnection):
    @property
    def is_connected(self) -> bool:
        return _stands(self.sock)

    def _new_conn(self) -> socket.socket:
        return _opened(self, self.port or 443)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    """requests' transport with TCP keepalive and with connections that may be interrupted."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        options = [*HTTPConnection.default_socket_options, *_KEEPALIVE]
        super().init_poolmanager(*args, **kwargs, socket_options=options)
        _use_our_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(proxy, **kwargs)
        _use_our_pools(manager)
        return manager

    def close(self) -> None:
        """Closes idle connections now: urllib3 2 leaves them to the garbage collector."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()


def _use_our_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
