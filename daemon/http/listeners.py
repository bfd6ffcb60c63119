"""Open the listeners of a configuration, and close them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from gevent.socket import wait_read
from msgspec import Struct

from checkpoints.rpc import unix_socket
from daemon.config.listeners import TcpOptions, split_address
from daemon.config.models import DaemonOptions
from daemon.control.api import ControlApi
from daemon.http.certificate import ServerCertificate
from daemon.http.contract import ListenerKind
from pillows.clock import Clock
from pillows.errors import ConfigError
from pillows.redaction import Redactor

if TYPE_CHECKING:  # see `_LateServer`
    from daemon.http.endpoint import Endpoint
    from daemon.http.server.server import BoundedServer

#: Seconds that requests may take to end when the daemon has stopped.
_CLOSE_SECONDS = 1.0
_BACKLOG = 128

_log = structlog.get_logger("pillowd.http")


class Listener(Struct, frozen=True, kw_only=True):
    """A listener of the configuration.

    Attributes:
        address: `host:port`, with the port that is listened on; or `unix:` and a path.
        kind: `read` for the read-only one, `admin` for one that serves the whole API.
        problem: why it is not open; empty if it is.
    """

    address: str
    kind: ListenerKind
    problem: str = ""


class Listeners:
    """Opens the listeners.

    Args:
        api: passed to the handlers.
        clock: for the throttle of wrong tokens, and the age of certificates.
        redactor: removes secrets from every answer that explains an error.
    """

    def __init__(self, api: ControlApi, clock: Clock, redactor: Redactor) -> None:
        self._api = api
        self._clock = clock
        self._redactor = redactor
        self._certificates: list[ServerCertificate] = []

    @property
    def expiries(self) -> list[float]:
        """When the certificates that are served expire, in wall-clock seconds."""
        return [each.current.expires_at for each in self._certificates]

    @contextmanager
    def open(self, settings: DaemonOptions) -> Iterator[list[Listener]]:
        """Open all listeners until the end of the `with` block.

        Yields:
            the listeners. One on the default address may have a problem instead: the address is in use.

        Raises:
            StoreLocked: another process answers on the admin socket.
            ConfigError: the daemon cannot listen on a configured address, or cannot use a certificate.
        """
        with ExitStack() as stack:
            opened: list[Listener] = []
            if settings.admin.path is not None:
                opened.append(self._open_admin(stack, settings.admin.path))
            if settings.admin.tcp is not None:
                opened.append(self._open_tcp(stack, settings.admin.tcp))
            if settings.http.listen is not None:
                opened.append(self._open_http(stack, settings))
            yield opened

    def _open_admin(self, stack: ExitStack, path: Path) -> Listener:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        listening = listen_on_path(path)
        stack.callback(_remove, path)
        self._serve(stack, listening, "unix", "admin", hosts=())
        return Listener(address=f"unix:{path}", kind="admin")

    def _open_tcp(self, stack: ExitStack, settings: TcpOptions) -> Listener:
        from daemon.http.access import Tokens  # noqa: PLC0415  hardly any daemon has tokens

        assert settings.tls is not None  # noqa: S101  the model needs it
        certificate = ServerCertificate(settings.tls, self._clock)
        self._certificates.append(certificate)
        listening = _listen(settings.listen, "daemon.admin.tcp.listen")
        host, _ = split_address(settings.listen)
        self._serve(
            stack,
            listening,
            "tcp",
            "admin",
            hosts=(_bracket(host), *settings.hosts),
            tokens=Tokens(settings.tokens, self._clock),
            tls=certificate,
        )
        return Listener(address=_name(listening), kind="admin")

    def _open_http(self, stack: ExitStack, settings: DaemonOptions) -> Listener:
        wanted = settings.http.listen or ""
        try:
            listening = _listen(wanted, "daemon.http.listen")
        except ConfigError as error:
            if "listen" in settings.http.model_fields_set:
                raise
            _log.warning("http.not_listening", address=wanted, reason=str(error))
            return Listener(address=wanted, kind="read", problem=str(error))
        host, _ = split_address(wanted)
        self._serve(stack, listening, "http", "read", hosts=(_bracket(host), *settings.http.hosts))
        return Listener(address=_name(listening), kind="read")

    def _serve(self, stack: ExitStack, listening: Any, name: str, kind: ListenerKind, **more: Any) -> None:
        late = _LateServer(listening, lambda: self._make_server(listening, name, kind, **more))
        stack.callback(late.stop)

    def _make_server(
        self, listening: Any, name: str, kind: ListenerKind, *, tls: Any = None, **more: Any
    ) -> BoundedServer:
        from daemon.http.endpoint import Endpoint, ListenerSettings  # noqa: PLC0415
        from daemon.http.server.server import BoundedServer  # noqa: PLC0415
        from daemon.http.short_way import ShortWay  # noqa: PLC0415

        gevent.sleep(0)
        from daemon.http.contract import load_contract  # noqa: PLC0415
        from daemon.http.handlers import find_all_handlers  # noqa: PLC0415

        contract = load_contract()
        gevent.sleep(0)
        find_all_handlers(contract)
        settings = ListenerSettings(
            kind=kind, redactor=self._redactor, origins=_origins(listening, tls, more["hosts"]), **more
        )
        endpoint = Endpoint(contract, self._api, settings)
        return BoundedServer(listening, ShortWay(endpoint, lambda: _make_app(endpoint)), name=name, tls=tls)


def _make_app(endpoint: Endpoint) -> Any:
    import flask  # noqa: F401, PLC0415  by itself: the longest of these imports

    gevent.sleep(0)
    from daemon.http.app import make_app  # noqa: PLC0415

    gevent.sleep(0)
    return make_app(endpoint)


class _LateServer:
    """Serves from the first connection on: importing the server takes time, and memory.

    Args:
        listening: a socket that listens.
        make: makes the server, giving way between its steps.
    """

    def __init__(self, listening: Any, make: Callable[[], BoundedServer]) -> None:
        self._listening = listening
        self._make = make
        self._server: BoundedServer | None = None
        self._waiting = gevent.spawn(self._wait)

    def stop(self) -> None:
        """Close the socket; requests may end for `_CLOSE_SECONDS`."""
        self._waiting.kill()
        if self._server is not None:
            self._server.stop(_CLOSE_SECONDS)
        self._listening.close()

    def _wait(self) -> None:
        wait_read(self._listening.fileno())
        try:
            server = self._make()
            server.start()
        except BaseException:
            self._listening.close()  # a client shall be refused, not wait for nobody
            raise
        self._server = server


def listen_on_path(path: Path) -> socket.socket:
    """Return a socket that listens on a path, with mode 0660; the stale one of a crashed process is replaced.

    Raises:
        StoreLocked: another process answers on it.
        OSError: it cannot be made.
    """
    listening = unix_socket.listen(path, mode=0o660)  # the service's umask would keep the group out
    listening.setblocking(False)
    return listening


def _listen(address: str, key: str) -> socket.socket:
    host, port = split_address(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"`{key}: {address}` is not available: {error}.", remedy="name another") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        taken = error.errno == errno.EADDRINUSE
        reason = "another process listens there" if taken else str(error.strerror)
        raise ConfigError(
            f"cannot listen on `{key}: {address}`: {reason}.",
            remedy="stop that process, or name another address" if taken else "name another address",
        ) from error
    return listening


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _name(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"{_bracket(host)}:{port}"


def _origins(listening: Any, tls: Any, hosts: Any) -> frozenset[str]:
    if listening.family == socket.AF_UNIX:
        return frozenset()
    port = listening.getsockname()[1]
    scheme = "https" if tls else "http"
    return frozenset(f"{scheme}://{host}:{port}" for host in {"localhost", "127.0.0.1", "[::1]", *hosts})
