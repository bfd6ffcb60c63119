"""Where the daemon listens, and what happens where it cannot."""

from __future__ import annotations

import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

import gevent
import pytest

from checkpoints import StoreLocked
from daemon import state_dir
from daemon.config.listeners import AdminOptions, HttpOptions, TcpOptions, TlsOptions, TokenOptions
from daemon.config.models import DaemonOptions
from daemon.control.api import ControlApi
from daemon.http.listeners import Listeners, listen_on_path
from pillows.clock import SystemClock
from pillows.errors import ConfigError
from pillows.redaction import Redactor
from tests.unit.daemon.http.conftest import Served


@pytest.fixture
def listeners(tmp_path: Path) -> Any:
    clock = SystemClock()
    with state_dir.open_state_dir(tmp_path / "state", clock) as state:
        yield Listeners(ControlApi(keys=[], state=state, clock=clock, daemon=None), clock, Redactor())


def test_the_default_address_may_be_taken(listeners: Listeners) -> None:
    """Several daemons of one machine would otherwise all need another port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        http = HttpOptions.model_construct(_fields_set=set(), listen=address, allow_remote=False, hosts=())
        with listeners.open(DaemonOptions(http=http, admin=AdminOptions(listen=None))) as (listener,):
            assert (listener.address, listener.kind) == (address, "read")
            assert "another process listens there" in listener.problem
        configured = HttpOptions(listen=address)
        with (
            pytest.raises(ConfigError, match="stop that process, or name another address"),
            listeners.open(DaemonOptions(http=configured, admin=AdminOptions(listen=None))),
        ):
            pass


def test_nothing_is_opened_where_nothing_is_wanted(listeners: Listeners) -> None:
    off = DaemonOptions(http=HttpOptions(listen=None), admin=AdminOptions(listen=None))
    with listeners.open(off) as opened:
        assert opened == []


def test_the_socket_of_a_crashed_process_is_replaced_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen_on_path(path).close()
    assert path.exists()
    with listen_on_path(path), pytest.raises(StoreLocked, match="another process answers"):
        listen_on_path(path)


def test_the_socket_goes_with_the_daemon(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "new" / "s"
    settings = DaemonOptions(http=HttpOptions(listen=None), admin=AdminOptions(listen=f"unix:{path}"))
    with listeners.open(settings):
        assert path.is_socket()
    assert not path.exists()


def test_a_certificate_that_cannot_be_used_is_a_mistake_of_the_configuration(
    listeners: Listeners, tmp_path: Path
) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    tls = TlsOptions(cert=tmp_path / "cert.pem", key=tmp_path / "cert.pem")
    tokens = (TokenOptions.model_validate({"name": "ops", "sha256": "0" * 64}),)
    tcp = TcpOptions(listen="127.0.0.1:0", tls=tls, tokens=tokens)
    settings = DaemonOptions(http=HttpOptions(listen=None), admin=AdminOptions(listen=None, tcp=tcp))
    with pytest.raises(ConfigError, match=r"Remedy: give .* as PEM files"), listeners.open(settings):
        pass


@pytest.mark.parametrize(
    ("version", "answers"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
def test_tls_is_of_today(shared: Served, version: ssl.TLSVersion, answers: bool) -> None:
    context = ssl.create_default_context(cafile=str(shared.cert))
    with warnings.catch_warnings(action="ignore"):  # that it is old is the point
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    assert isinstance(shared.tcp.address, tuple)
    plain = socket.create_connection(shared.tcp.address, timeout=30)
    with plain:
        try:
            context.wrap_socket(plain, server_hostname="127.0.0.1").close()
            done = True
        except OSError:
            done = False
    assert done == answers


def test_clients_are_refused_where_no_server_can_be_made(
    listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is made when the first client connects, which must not wait in vain if that fails."""
    reported: list[object] = []
    monkeypatch.setattr("daemon.http.contract.load_contract", lambda: 1 / 0)
    monkeypatch.setattr(
        gevent.get_hub(), "print_exception", lambda _context, type_, *_: reported.append(type_)
    )
    http = HttpOptions(listen="127.0.0.1:0")
    with listeners.open(DaemonOptions(http=http, admin=AdminOptions(listen=None))) as (listener,):
        host, _, port = listener.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\n")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)
    assert reported == [ZeroDivisionError]
