"""The HTTP session of `pillows.couch.client`: requests, with connections that may be interrupted.

A feed is stopped by killing its greenlet, whatever it waits for. urllib3 closes its socket in every case but
two: a greenlet that is killed while it connects, or while it checks whether an idle connection is still open,
leaves the socket to the garbage collector. This module does both itself.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from weakref import WeakSet

import gevent
import requests
from gevent import monkey
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pillows.couch.http.name_lookup import install
from pillows.couch.http.response import BoundedResponse
from pillows.couch.options import CouchConnection
from pillows.tcp_keepalive import SOCKET_OPTIONS

#: The scheme and address of a URL, and a URL whose path and query need no further encoding.
_SERVER = re.compile(r"https?://[^/?#]+")
_ENCODED = re.compile(
    rf"({_SERVER.pattern})(/[A-Za-z0-9._~:@!$&'()*+,;=/?-]*(?:%[0-9A-Fa-f]{{2}}[A-Za-z0-9._~:@!$&'()*+,;=/?-]*)*)"
)

#: Connections kept open for short requests; streams beyond it are closed after use.
_POOL_CONNECTIONS = 32


def create_session(connection: CouchConnection) -> requests.Session:
    """Return a session for one server, without credentials and without cookies of its own."""
    http = _Session()
    http.auth = IgnoreNetrc()
    # `pillows.couch.auth` sends the cookie: a jar would keep that of an expired session.
    http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    http.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
    bound_answers(http)
    if connection.client_cert:
        certificate, key = str(connection.client_cert), connection.client_key
        http.cert = (certificate, str(key)) if key else certificate
    return http


def bound_answers(http: requests.Session) -> None:
    """Let a session keep its connections alive, and bound what a server sends in addition to the body."""
    adapter = _Adapter(pool_connections=1, pool_maxsize=_POOL_CONNECTIONS, max_retries=0)
    http.mount("http://", adapter)
    http.mount("https://", adapter)


def count_open(http: requests.Session) -> int:
    """Return the number of open connections of a session of ours, idle ones included."""
    adapters = {id(each): each for each in http.adapters.values() if isinstance(each, _Adapter)}
    return sum(sock.fileno() >= 0 for each in adapters.values() for sock in list(each.sockets))


class IgnoreNetrc(requests.auth.AuthBase):
    """Keeps requests from reading ~/.netrc: credentials come from the configuration alone."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Return the request as it is."""
        return request


def _connect(host: str, port: int, timeout: Any, options: Sequence[Any]) -> socket.socket:
    """Return a connected socket; if that fails, leave none open.

    Raises:
        OSError: no address of the host accepted the connection.
    """
    failure: OSError | None = None
    install()
    with gevent.Timeout(timeout if isinstance(timeout, int | float) else None, TimeoutError):
        addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    for family, kind, protocol, _, address in addresses:
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


def _open(connection: HTTPConnection, port: int) -> socket.socket:
    """Return a connected socket for one of urllib3's connections.

    Raises:
        NewConnectionError: it cannot be connected. Not an OSError: urllib3 ignores a reset while it sends a
            request, and would go on to read from a socket that was never connected.
    """
    try:
        return _connect(connection._dns_host, port, connection.timeout, connection.socket_options or ())  # noqa: SLF001 - as urllib3's own does
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, f"no connection within {connection.timeout} s") from error
    except OSError as error:
        raise NewConnectionError(connection, str(error)) from error


def _is_idle_alive(sock: socket.socket | None) -> bool:
    """Return whether an idle connection is still open: nothing can be read from it, not even its end.

    Asks the kernel without switching greenlets, so it cannot be interrupted.
    """
    if sock is None:
        return False
    poll = monkey.get_original("select", "poll")()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(0)


class _Session(requests.Session):
    """A session for requests without cookies, redirects and hooks, whose paths are encoded already.

    All that requests does for others takes longer than such a request itself. So the environment is looked
    into once for each server, an address is parsed once, and no jar of cookies is made that must stay empty.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        self._servers: dict[str, str] = {}

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Return the proxies and certificates for a request, as requests finds them."""
        server = _SERVER.match(url)
        key = (server and server[0], *sorted((proxies or {}).items()), stream, verify, cert)
        if key not in self._found:
            self._found[key] = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return dict(self._found[key])

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Return a request as requests would prepare it."""
        found = _ENCODED.fullmatch(str(request.url))
        if found is None or (isinstance(request.data, dict) and request.data):
            return super().prepare_request(request)
        server, path = found.groups()
        if server not in self._servers:
            whole = super().prepare_request(requests.Request("GET", f"{server}/"))
            self._servers[server] = str(whole.url).removesuffix("/")
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = request.method, self._servers[server] + path
        prepared.headers = CaseInsensitiveDict({**self.headers, **(request.headers or {})})
        prepared.body = request.data or None
        if prepared.body is not None or request.method not in ("GET", "HEAD"):
            prepared.headers["Content-Length"] = str(len(prepared.body or b""))
        return prepared

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        """Send a prepared request. A redirect is returned as it is."""
        settings.pop("allow_redirects", None)
        return self.get_adapter(url=str(request.url)).send(request, **settings)


class _Counted:
    """A connection whose open sockets are counted."""

    sockets: WeakSet[socket.socket]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc] # of the class beside
        self.sockets.add(self.sock)  # type: ignore[attr-defined]


class _CountedPool:
    """A pool that gives its connections the counter of their sockets."""

    def __init__(self, *args: Any, sockets: WeakSet[socket.socket], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sockets = sockets

    def _new_conn(self) -> Any:
        connection = super()._new_conn()  # type: ignore[misc] # of the class beside
        connection.sockets = self._sockets
        return connection


class _Http(_Counted, HTTPConnection):
    response_class = BoundedResponse

    @property
    def is_connected(self) -> bool:
        return _is_idle_alive(self.sock)

    def _new_conn(self) -> socket.socket:
        return _open(self, self.port or 80)


class _Https(_Counted, HTTPSConnection):
    response_class = BoundedResponse

    @property
    def is_connected(self) -> bool:
        return _is_idle_alive(self.sock)

    def _new_conn(self) -> socket.socket:
        return _open(self, self.port or 443)


class _HttpPool(_CountedPool, HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(_CountedPool, HTTPSConnectionPool):
    ConnectionCls = _Https


class _Adapter(HTTPAdapter):
    """requests' transport with TCP keep-alive and with connections that may be interrupted.

    Attributes:
        sockets: those that were connected and are still in use.
    """

    def __init__(self, **settings: Any) -> None:
        self.sockets: WeakSet[socket.socket] = WeakSet()
        self._pools: dict[tuple[Any, ...], Any] = {}
        super().__init__(**settings)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        options = [*HTTPConnection.default_socket_options, *SOCKET_OPTIONS]
        super().init_poolmanager(*args, **kwargs, socket_options=options)
        _use_our_pools(self.poolmanager, self.sockets)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(proxy, **kwargs)
        _use_our_pools(manager, self.sockets)
        return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the pool of connections for a request, which is found out once for each server."""
        server = _SERVER.match(str(request.url))
        if proxies or server is None:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        key = (server[0], verify, cert)
        if key not in self._pools:
            self._pools[key] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return self._pools[key]

    def close(self) -> None:
        """Close idle connections now: urllib3 2 leaves them to the garbage collector."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()


def _use_our_pools(manager: PoolManager, sockets: WeakSet[socket.socket]) -> None:
    pools: Any = {
        "http": partial(_HttpPool, sockets=sockets),
        "https": partial(_HttpsPool, sockets=sockets),
    }
    manager.pool_classes_by_scheme = pools
